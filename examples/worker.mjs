// A worker on supabase-js, 2.49 or newer:   npm install @supabase/supabase-js ws
//   COGO_URL=https://… COGO_KEY=… COGO_TOPIC=echo/default node worker.mjs
import { createClient } from '@supabase/supabase-js';
import WebSocket from 'ws';

globalThis.WebSocket ??= WebSocket; // Node 22 and browsers have their own
const { COGO_URL, COGO_KEY, COGO_TOPIC = 'echo/default', COGO_WORKER = 'js-1', COGO_LEASE_MS = 30000 } = process.env;
const lease_ms = Number(COGO_LEASE_MS);
const bus = createClient(COGO_URL, COGO_KEY);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const call = async (fn, args) => (await bus.rpc(fn, args).throwOnError()).data;

async function handle(message) { // yours
  await pause(message.payload.ms ?? 0);
  return { echo: message.payload };
}

async function attempt({ id, claim_no, ...message }) {
  const extend = () => call('bus_extend', { claims: [{ id, claim_no }], lease_ms }).catch(console.error);
  const extending = setInterval(extend, lease_ms / 3); // for as long as the work takes
  const failed = ({ message }) => ({ op: 'fail', id, claim_no, error: { message }, retry_in_ms: 5000 });
  const done = (result) => ({ op: 'complete', id, claim_no, result });
  return handle(message).then(done, failed).finally(() => clearInterval(extending));
}

let wake = () => {}; // A wake-up says no more than "look": what there is to do, only a claim tells.
const filter = `role=eq.${COGO_TOPIC.split('/')[0]}`;
bus.channel('wake').on('postgres_changes', { event: '*', schema: 'public', table: 'agent_messages', filter }, () => wake())
  .on('system', {}, () => wake()).subscribe(() => wake());
for (let settles = []; ;) {
  const woken = new Promise((resolve) => (wake = resolve)); // before looking, so that none is missed
  try { // Should the answer be lost, the same settles are sent again: they are answered as repeated.
    const rows = await call('bus_step', { settles, worker: COGO_WORKER, topics: [COGO_TOPIC], max: 8, lease_ms });
    settles = await Promise.all(rows.filter((row) => row.message?.id).map((row) => attempt(row.message)));
    if (!settles.length) await Promise.race([woken, pause(15000 + 15000 * Math.random())]);
  } catch (error) { console.error(error.message); await pause(1000 + 2000 * Math.random()); }
}
