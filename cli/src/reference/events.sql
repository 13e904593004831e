-- Has everything happen that writes an event, so that the page of events can be held to what is written. Statement by
-- statement, each of one line or several, separated by lines that begin with "-- then" or "-- later" (a minute passes).

-- A message with all that a message can have, which succeeds.
select bus_enqueue('[{"id": "00000000-0000-7000-8000-000000000001", "trace_id": "00000000-0000-7000-8000-0000000000aa",
    "role": "r", "service": "s", "intent": "x.y", "payload": {"params": {}}, "parent_id": "00000000-0000-7000-8000-0000000000bb",
    "idempotency_key": "k", "deadline_ms": 10000000, "ordering_key": "o"}]')
-- then
select bus_claim('w', '{r/s}')
-- then
select bus_append_event(jsonb_build_array(
    jsonb_build_object('event_type', 'x_y_progress', 'message_id', id, 'payload', '{"progress": {}, "reports": [], "dropped": 1}'::jsonb),
    jsonb_build_object('event_type', 'x_y_input', 'message_id', id, 'payload', '{"responses": {}, "task": "t"}'::jsonb),
    '{"event_type": "admin_action", "payload": {"method": "PUT", "route": "/x", "path": "/x", "status": 200, "from": "::1", "who": "admin"}}'::jsonb))
from agent_messages where status = 'claimed'
-- then
select bus_complete(jsonb_agg(jsonb_build_object('id', id, 'claim_no', claim_no, 'result', 1,
    'meta', '{"duration_ms": 1, "fallback": "t", "circuit": "c"}'::jsonb)))
from agent_messages where status = 'claimed'
-- then
-- One that fails, is tried again, fails for good, comes back with other parameters, and is dropped.
select bus_enqueue('[{"role": "r", "service": "s", "intent": "x.y", "payload": {"params": {}}, "max_attempts": 2}]')
-- then
select bus_claim('w', '{r/s}')
-- then
select bus_fail(jsonb_agg(jsonb_build_object('id', id, 'claim_no', claim_no, 'error', '{"class": "timeout"}'::jsonb,
    'retry_in_ms', 0, 'meta', '{"duration_ms": 1, "fallback": "t", "circuit": "c"}'::jsonb)))
from agent_messages where status = 'claimed'
-- then
select bus_claim('w', '{r/s}')
-- then
select bus_fail(jsonb_agg(jsonb_build_object('id', id, 'claim_no', claim_no, 'error', '{"class": "timeout"}'::jsonb)))
from agent_messages where status = 'claimed'
-- then
select bus_requeue(jsonb_agg(jsonb_build_object('id', id, 'params', '{}'::jsonb))) from agent_messages where status = 'failed'
-- then
-- Its worker dies, twice.
select bus_claim('w', '{r/s}', lease_ms => 1000)
-- later
select bus_reap()
-- then
select bus_claim('w', '{r/s}', lease_ms => 1000)
-- later
select bus_reap()
-- then
select bus_drop(jsonb_agg(jsonb_build_object('id', id))) from agent_messages where status = 'failed'
-- then
-- One that is too late, and one that is withdrawn.
select bus_enqueue('[{"role": "r", "service": "s", "intent": "x.y", "payload": 1, "deadline_ms": 1000}]')
-- later
select bus_reap()
-- then
select bus_enqueue('[{"id": "00000000-0000-7000-8000-000000000003", "role": "r", "service": "s", "intent": "x.y", "payload": 1}]')
-- then
-- A breaker: opened by a worker, probed in vain, probed well, worked by an operator. What waits is parked.
select bus_circuit_open('default', 'c', 'w', 'failure_rate', 0, '{"open_ms": 1000, "half_open_max_calls": 1, "successes_to_close": 1}',
    '{"calls": 5, "failure_rate": 1, "slow_rate": 0}')
-- then
select bus_claim('w', '{r/s}')
-- then
select bus_release(jsonb_agg(jsonb_build_object('id', id, 'claim_no', claim_no, 'park', 'c', 'reason', 'circuit_open',
    'meta', '{"duration_ms": 1}'::jsonb))) from agent_messages where status = 'claimed'
-- then
select bus_cancel('[{"id": "00000000-0000-7000-8000-000000000003"}]', 'no more')
-- later
select bus_circuit_probe('default', 'c', 'w')
-- then
select bus_circuit_report('default', 'c', 'w', false, 'refused')
-- later
select bus_circuit_probe('default', 'c', 'w')
-- then
select bus_circuit_report('default', 'c', 'w', true)
-- then
select bus_circuit_set('default', 'c', 'open', 'me', 'sick', 1000)
-- then
select bus_circuit_set('default', 'c', 'close', 'me')
-- then
-- A worker comes, says more, goes; another is lost.
select bus_worker_seen('{"id": "w", "role": "mcp-gateway", "topics": ["mcp-gateway/t"], "lease_ms": 1000}')
-- then
select bus_worker_seen('{"id": "w", "role": "mcp-gateway", "version": "2"}')
-- then
select bus_worker_gone('w', 'stopped')
-- then
select bus_worker_seen('{"id": "v", "role": "r", "lease_ms": 1000}')
-- later
select bus_reap()
-- then
-- A tool is approved and revoked, a secret set, with a reason, and unset.
select bus_define(jsonb_build_array(jsonb_build_object('definition', '{}', 'hash', encode(sha256('{}'), 'hex'))))
-- then
select bus_pin(jsonb_build_array(jsonb_build_object('toolset', 't', 'tool', 'x', 'hash', encode(sha256('{}'), 'hex'))))
-- then
select bus_pin('[{"toolset": "t", "tool": "x", "hash": null}]')
-- then
select bus_env_set(jsonb_build_array(jsonb_build_object('name', 'TOKEN', 'version', 1, 'key_id', '01234567',
    'ciphertext', repeat('A', 40))), null, 'me', 'rotated')
-- then
select bus_env_unset('{TOKEN}')
-- then
-- A message that waits is lost from the table and restored, and what has ended is purged.
select bus_enqueue('[{"id": "00000000-0000-7000-8000-000000000004", "role": "r", "service": "s", "intent": "x.y", "payload": 1}]')
-- then
delete from agent_messages where id = '00000000-0000-7000-8000-000000000004'
-- then
select bus_replay_rebuild('00000000-0000-0000-0000-000000000000', '{}', '{}', true)
-- later
select bus_retain('0', '0')
