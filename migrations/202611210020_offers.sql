-- Who offers tools, and under which names. A token for the topics of another role could say that it offers a toolset
-- which it may not serve: `echo/browser` was taken for `mcp-gateway/browser`, since only the role that the worker gave
-- itself was looked at. And whoever speaks to the database itself could give a tool a name that a gateway would not.

-- As in 202611210017_catalogue.sql, of gateways alone, and of tools whose names are 1 to 255 bytes without control characters.
create or replace function cogo.offered(info jsonb, topics text[], role text) returns table (toolset text, tool text, hash text)
    language sql immutable parallel safe
    as $$
        select t.key, o.key, o.value
        from jsonb_each(case when jsonb_typeof(info -> 'toolsets') = 'object' then info -> 'toolsets' else '{}' end) t
        cross join lateral jsonb_each_text(
            case when jsonb_typeof(t.value -> 'tools') = 'object' then t.value -> 'tools' else '{}' end) o
        where role = 'mcp-gateway' and 'mcp-gateway/' || t.key = any (topics) and o.value ~ '^[0-9a-f]{64}$'
            and octet_length(o.key) between 1 and 255 and o.key !~ '[\x01-\x1f\x7f-\x9f]'
    $$;
