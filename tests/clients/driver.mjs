// Does with supabase-js what the tests say: a command a line on stdin, an answer or an event a line on
// stdout, all JSON. Runs in the directory in which the client is installed.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const require = createRequire(join(process.cwd(), 'driver.cjs'));
const { createClient } = require('@supabase/supabase-js');
const { version } = require('@supabase/supabase-js/package.json');
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const text = (error) => error && { name: error.name, message: error.message, code: error.code };
const bytes = (payload) => Buffer.from(payload).toString('base64');

let client;
const channels = {};

const commands = {
  version: () => version,

  connect({ url, key }) {
    // On Node 20 the new client wants to be given a WebSocket, and the old one brings its own and breaks
    // when it is given one.
    const realtime = version.startsWith('2.49.') ? {} : { transport: require('ws') };
    client = createClient(url, key, { realtime, auth: { persistSession: false, autoRefreshToken: false } });
  },

  async subscribe({ channel: name, config = {}, changes = [], presence = false }) {
    const channel = (channels[name] = client.channel(name, { config }));
    const on = (event, more) => say({ event, channel: name, ...more });
    for (const change of changes) {
      channel.on('postgres_changes', change, ({ eventType: type, new: record, table }) =>
        on('change', { asked: change, type, record, table }),
      );
    }
    channel.on('broadcast', { event: '*' }, (message) => {
      const { payload } = message;
      const binary = payload instanceof ArrayBuffer || ArrayBuffer.isView(payload);
      on('broadcast', { name: message.event, payload: binary ? { base64: bytes(payload) } : payload });
    });
    if (presence) {
      const seen = () => on('sync', { state: channel.presenceState() });
      channel.on('presence', { event: 'sync' }, seen);
      channel.on('presence', { event: 'join' }, ({ key }) => on('joined', { key }));
      channel.on('presence', { event: 'leave' }, ({ key }) => on('left', { key }));
    }
    channel.on('system', {}, (payload) => on('system', { payload }));
    return new Promise((resolve) => {
      channel.subscribe((status, error) => {
        on('status', { status, error: text(error) });
        resolve(status);
      });
    });
  },

  send: ({ channel, name, payload }) =>
    channels[channel].send({ type: 'broadcast', event: name, payload }),
  send_bytes: ({ channel, name, base64 }) => {
    const payload = new Uint8Array(Buffer.from(base64, 'base64')).buffer;
    return channels[channel].send({ type: 'broadcast', event: name, payload });
  },
  http_send: ({ channel, name, payload }) => client.channel(channel).httpSend(name, payload),
  track: ({ channel, state }) => channels[channel].track(state),
  untrack: ({ channel }) => channels[channel].untrack(),
  presence: ({ channel }) => channels[channel].presenceState(),
  set_auth: ({ token }) => client.realtime.setAuth(token),
  async leave({ channel }) {
    await client.removeChannel(channels[channel]);
  },

  rpc: ({ fn, args, get, steps = [] }) => request(client.rpc(fn, args, { get }), steps),
  select: ({ table, columns = '*', options, steps = [] }) =>
    request(client.from(table).select(columns, options), steps),
  insert: ({ table, row }) => request(client.from(table).insert(row), []),
};

async function request(query, steps) {
  for (const [step, ...args] of steps) query = query[step](...args);
  const { data, error, status, count } = await query;
  const failed = error && { code: error.code, message: error.message, hint: error.hint, details: error.details };
  return { data, error: failed, status, count };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...args } = JSON.parse(line);
  // Not one after the other: a subscription that never comes must not keep others from being made.
  Promise.resolve()
    .then(() => commands[command](args))
    .then((answer) => say({ id, answer: answer ?? null }))
    .catch((error) => say({ id, failed: text(error) ?? String(error) }));
}
process.exit(0);
