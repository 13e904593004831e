// A role in TypeScript with all that a role should have; docs/roles-typescript.md goes through it. It brings the items of a
// message to a service, one by one:   {"items": [...]}   →   POST $DELIVER_TO for each.
//   npm install @supabase/supabase-js ws && npm install --save-dev typescript @types/node @types/ws
//   npx tsc && DELIVER_TO=http://… COGO_URL=https://… COGO_KEY=… node worker.js
import { hostname } from 'node:os';
import { createClient } from '@supabase/supabase-js';
import WebSocket from 'ws';

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
/** What a claim gives. There is more in it; see `agent_messages`. */
interface Message {
  id: string; claim_no: number; intent: string; payload: { items?: Json[] }; attempts: number; error: { class?: string; may_have_run?: boolean } | null;
}
type Class = 'connect' | 'timeout' | 'closed' | 'tool_error' | 'invalid_params' | 'ambiguous' | 'internal';
type Settle = { id: string; claim_no: number } & (
  | { op: 'complete'; result: Json }
  | { op: 'fail'; error: { class: Class; message: string; may_have_run?: boolean }; retry_in_ms?: number }
  | { op: 'release'; reason: string });
class Failure extends Error {
  constructor(readonly kind: Class, message: string) { super(message); }
}

const need = (name: string): string => process.env[name] ?? (console.error(`${name}: must be set`), process.exit(2));
const { COGO_TOPIC: topic = 'deliver/default', COGO_WORKER: worker = 'ts-1', COGO_LEASE_MS = '30000' } = process.env;
const target = need('DELIVER_TO');
const repeatable = process.env.DELIVER_REPEATABLE === '1'; // the service knows an Idempotency-Key when it sees it again
const lease_ms = Number(COGO_LEASE_MS), places = 4, drain_ms = 20000, role = topic.split('/')[0];
globalThis.WebSocket ??= WebSocket as unknown as typeof globalThis.WebSocket; // Node 22 and browsers have their own
const bus = createClient(need('COGO_URL'), need('COGO_KEY'));
const call = async (fn: string, args: object): Promise<any> => (await bus.rpc(fn, args).throwOnError()).data;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

// ---- the work ----

async function handle(message: Message, progress: (done: number, of: number) => void, lost: AbortSignal): Promise<Json> {
  const items = message.payload.items;
  if (!Array.isArray(items)) throw new Failure('invalid_params', 'payload.items: must be an array');
  const vanished = message.attempts > 1 && (message.error?.class === 'lease_expired' || message.error?.may_have_run);
  if (vanished && !repeatable) throw new Failure('ambiguous', 'an earlier attempt may have delivered some of it');
  for (const [n, item] of items.entries()) {
    await deliver(`${message.id}/${n}`, item, lost).catch((failure: Failure) => { // the same key at each attempt
      if (n === 0 || repeatable) throw failure;
      throw new Failure('ambiguous', `${n} of ${items.length} are delivered; then: ${failure.message}`); // not to be delivered twice
    });
    progress(n + 1, items.length);
  }
  return { delivered: items.length };
}

async function deliver(key: string, item: Json, lost: AbortSignal): Promise<void> {
  const answer = await fetch(target, {
    method: 'POST', body: JSON.stringify(item), signal: AbortSignal.any([lost, AbortSignal.timeout(10000)]),
    headers: { 'content-type': 'application/json', 'idempotency-key': key },
  }).catch((error: Error & { cause?: { code?: string } }) => {
    const unsent = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'UND_ERR_CONNECT_TIMEOUT'];
    if (unsent.includes(error.cause?.code ?? '')) throw new Failure('connect', `${target} is not reached: ${error.cause?.code}`);
    if (!repeatable) throw new Failure('ambiguous', `no answer to ${key}: it may have been delivered`);
    throw new Failure(error.name === 'TimeoutError' ? 'timeout' : 'closed', `no answer to ${key}: ${error.message}`);
  });
  if (answer.status >= 500) throw new Failure('tool_error', `${target} answers ${answer.status}`);
  if (!answer.ok) throw new Failure('invalid_params', `${target} refuses ${key}: ${answer.status}`);
}

// ---- from the claim to the settle ----

const retried: Class[] = ['connect', 'timeout', 'closed']; // the others end in the dead-letter queue at once

async function attempt(message: Message, stopped: AbortSignal): Promise<Settle> {
  const { id, claim_no } = message, lost = new AbortController();
  const extending = setInterval(async () => {
    const [row] = await call('bus_extend', { claims: [{ id, claim_no }], lease_ms }).catch(() => [{}]);
    if (row.code === 'CG409') lost.abort(); // somebody else's now; whatever we would say is refused
  }, lease_ms / 3);
  let told: Promise<unknown> = Promise.resolve(); // in order, and before the result
  const event_type = `${message.intent.replaceAll('.', '_')}_progress`;
  const progress = (done: number, of: number) => {
    const event = { event_type, message_id: id, attempt: message.attempts, worker_id: worker, payload: { progress: { progress: done, total: of } } };
    told = told.then(() => call('bus_append_event', { events: [event] })).catch(() => {});
  };
  const cut = new Promise<never>((_, reject) => stopped.addEventListener('abort', () => reject(stopped)));
  try {
    const result = await Promise.race([handle(message, progress, lost.signal), cut]);
    return { id, claim_no, op: 'complete', result };
  } catch (error) {
    // Cut off in the middle: an attempt that may be made again is given back, one that may not has an unknown end.
    if (error === stopped && repeatable) return { id, claim_no, op: 'release', reason: 'shutdown' };
    const failure = error instanceof Failure ? error
      : new Failure(error === stopped ? 'ambiguous' : 'internal', error === stopped ? 'cut off by shutdown' : String(error));
    const settle = { id, claim_no, op: 'fail' as const, error: { class: failure.kind, message: failure.message, may_have_run: ['timeout', 'closed', 'ambiguous'].includes(failure.kind) } };
    if (!retried.includes(failure.kind)) return settle;
    return { ...settle, retry_in_ms: Math.round(Math.random() * Math.min(60000, 500 * 2 ** message.attempts)) }; // full jitter
  } finally {
    clearInterval(extending);
    await told;
  }
}

// ---- the loop ----

let wake = () => {}; // "look", and no more than that
let stopping = false, running = 0, settles: Settle[] = [];
const cut = new AbortController();
cut.signal.addEventListener('abort', () => wake());
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => { stopping = true; setTimeout(() => cut.abort(), drain_ms).unref(); wake(); });

const seen = () => call('bus_worker_seen', { worker: { id: worker, role, topics: [topic], host: hostname(), info: { capacity: places } } })
  .then(() => call('bus_reap', { max: 100 })).catch(() => {}); // a hub reaps by itself; on Supabase alone nobody else would
const seeing = setInterval(seen, 10000);
await seen();
bus.channel('wake').on('postgres_changes', { event: '*', schema: 'public', table: 'agent_messages', filter: `role=eq.${role}` }, () => wake())
  .on('system', {}, () => wake()).subscribe(() => wake());

while (!stopping || running || settles.length) {
  const woken = new Promise<void>((resolve) => (wake = resolve)); // before looking, so that none is missed
  const sent = settles;
  settles = [];
  try {
    const max = stopping ? 0 : places - running;
    const rows: { message: Message | null }[] = await call('bus_step', { settles: sent, worker, topics: [topic], max, lease_ms });
    for (const { message } of rows) if (message?.id) {
      running += 1;
      attempt(message, cut.signal).then((settle) => {
        running -= 1, settles.push(settle), wake();
        if (settle.op === 'fail' && settle.retry_in_ms !== undefined) setTimeout(() => wake(), settle.retry_in_ms + 500).unref(); // nobody tells of what becomes due
      });
    }
    if (!settles.length) await Promise.race([woken, pause(15000 + 15000 * Math.random())]);
  } catch (error) { // The same settles again: one that was done already is answered as repeated.
    const { code, message } = error as { code?: string; message: string };
    console.error(message);
    if (code !== 'CG400' && code !== 'CG413') settles.unshift(...sent); // a settle that is refused never helps; its lease runs out
    await pause(1000 + 2000 * Math.random());
  }
}
clearInterval(seeing);
await call('bus_worker_gone', { worker, reason: 'shutdown' }).catch(() => {});
process.exit(0);
