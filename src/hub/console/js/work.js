// A message's life, read from its events: what it was, each attempt with what it waited for, and how it ended.

/** `mcp_call_retry_scheduled` is `retry_scheduled` of the intent `mcp.call`. */
const WHATS = ['retry_scheduled', 'dead_lettered', 'scheduled', 'succeeded', 'failed', 'lease_expired', 'cancelled', 'requeued', 'dropped', 'progress', 'restored', 'released'];

export function whatOf(event) {
  // An intent may end in a word of ours; only a beginning names the intent.
  if (event.event_type.endsWith('_scheduled') && event.payload?.intent) return 'scheduled';
  return WHATS.find((what) => event.event_type.endsWith(`_${what}`)) ?? event.event_type;
}

const ms = (event) => new Date(event.created_at).getTime();

/** The messages of a trace, in the order in which they were scheduled. */
export function messagesOf(events) {
  const messages = new Map();
  for (const event of events) {
    if (!event.message_id) continue;
    if (!messages.has(event.message_id)) messages.set(event.message_id, { id: event.message_id, events: [] });
    messages.get(event.message_id).events.push(event);
  }
  return [...messages.values()].map(read);
}

function read({ id, events }) {
  const first = events[0];
  const scheduled = events.find((event) => whatOf(event) === 'scheduled');
  const payload = scheduled?.payload?.payload ?? {};
  const work = {
    id,
    events,
    tenant: first.tenant,
    role: first.role,
    service: first.service,
    shard: first.shard,
    intent: scheduled?.payload?.intent ?? first.event_type.replace(/_scheduled$/, ''),
    toolset: payload.toolset ?? first.service,
    tool: payload.tool ?? null,
    payload,
    maxAttempts: scheduled?.payload?.max_attempts ?? null,
    deadlineMs: scheduled?.payload?.deadline_ms ?? null,
    attempts: [],
    waits: [],
    status: 'waiting',
    start: ms(first),
    end: ms(events[events.length - 1]),
  };
  let since = work.start;
  let why = 'queue';
  for (const event of events) {
    const what = whatOf(event);
    const at = ms(event);
    if (what === 'succeeded' || what === 'failed' || what === 'lease_expired') {
      const begin = Math.max(since, at - (event.payload?.duration_ms ?? 0));
      if (begin > since) work.waits.push({ from: since, to: begin, why });
      work.attempts.push({
        n: event.attempt,
        ok: what === 'succeeded',
        from: begin,
        to: at,
        ms: event.payload?.duration_ms ?? null,
        latencyMs: event.payload?.latency_ms ?? null,
        class: event.payload?.class ?? (what === 'succeeded' ? null : event.reason),
        message: event.payload?.error?.message ?? null,
        detail: event.payload?.error?.detail ?? null,
        folder: event.payload?.artifacts ?? null,
        worker: event.worker_id,
        event,
      });
      since = at;
      why = 'queue';
      work.status = what === 'succeeded' ? 'done' : 'waiting';
    } else if (what === 'retry_scheduled') {
      why = 'retry';
      work.status = 'waiting';
      if (work.attempts.length) work.attempts[work.attempts.length - 1].retry = event;
    } else if (what === 'released') {
      // Given back untried: at a shutdown, or because a breaker stands before it.
      if (at > since) work.waits.push({ from: since, to: at, why });
      since = at;
      why = event.reason === 'circuit_open' || event.payload?.parked_for ? 'circuit' : 'queue';
      work.status = 'waiting';
    } else if (what === 'dead_lettered') {
      work.status = 'failed';
      work.death = event;
      why = 'dead';
      since = at;
    } else if (what === 'cancelled' || what === 'dropped') {
      work.status = what === 'cancelled' ? 'cancelled' : 'failed';
      work.dropped = what === 'dropped';
      since = at;
    } else if (what === 'requeued') {
      // What lies between a death and this is nobody's waiting.
      since = at;
      why = 'queue';
      work.status = 'waiting';
      work.death = null;
      if (event.payload?.payload) work.payload = event.payload.payload;
      work.maxAttempts = event.payload?.max_attempts ?? work.maxAttempts;
      work.requeued = (work.requeued ?? 0) + 1;
    }
  }
  if (work.status === 'waiting') work.waiting = { from: since, why };
  work.last = work.attempts[work.attempts.length - 1] ?? null;
  return work;
}

/** The key of policies and breakers for a message. */
export function policyKey({ intent, toolset, tool, shard }) {
  return [intent, toolset, tool, shard].filter((part) => part !== null && part !== undefined && part !== '').join('.');
}

/** The breaker that stands before a message, if one has ever opened: the narrowest key that fits. */
export function breakerOf(work, circuits) {
  const key = policyKey(work);
  return circuits
    .filter((circuit) => circuit.tenant === work.tenant && (key === circuit.key || key.startsWith(`${circuit.key}.`)))
    .sort((a, b) => b.key.length - a.key.length)[0];
}
