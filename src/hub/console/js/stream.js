// The log as it grows, by `GET /api/events/stream`. `EventSource` cannot send a header, so this reads the stream
// itself: it comes back after every loss with `Last-Event-ID`, and so misses nothing and tells nothing twice.

import { Failure, call, tell } from './api.js';

/** No word for this long, where each fifteen seconds one is due: the line is dead. */
const SILENCE_MS = 40_000;
const BACK_OFF_MS = [500, 1000, 2000, 4000, 8000];

/**
 * Follows the log until `signal` ends it. `on.event(event)`, `on.gap({from, to})`, `on.state('live' | 'lost' | 'refused', failure)`.
 * `place` is where to begin: `{ after: cursor }`, kept up to date; without a cursor at the log's present end.
 */
export async function follow({ query = {}, place = {}, on, signal }) {
  for (let losses = 0; !signal.aborted; ) {
    try {
      await once({
        query,
        place,
        signal,
        on,
        opened: () => {
          losses = 0;
          on.state?.('live');
        },
      });
    } catch (failure) {
      if (signal.aborted) return;
      // 4xx will be the same again, but for too many streams and a key that is being changed.
      if (failure instanceof Failure && [400, 401, 403, 404].includes(failure.status)) {
        on.state?.('refused', failure);
        return;
      }
    }
    if (signal.aborted) return;
    on.state?.('lost');
    await pause(BACK_OFF_MS[Math.min(losses, BACK_OFF_MS.length - 1)], signal);
    losses += 1;
  }
}

async function once({ query, place, signal, on, opened }) {
  const ended = new AbortController();
  const stop = () => ended.abort();
  signal.addEventListener('abort', stop, { once: true });
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    const more = { accept: 'text/event-stream', ...(place.after ? { 'last-event-id': place.after } : {}) };
    const response = await call('/api/events/stream', { query, signal: ended.signal, more });
    opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser((message) => take(message, place, on));
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      parse(value);
    }
  } catch (error) {
    if (!signal.aborted && !(error instanceof Failure)) tell(false);
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    ended.abort();
  }
}

function take({ id, event, data }, place, on) {
  if (data) {
    const told = JSON.parse(data);
    if (event === 'gap') on.gap?.(told);
    else on.event(told);
  }
  // Only once it was taken: one that could not be read is sent again.
  if (id) place.after = id;
}

/** The lines of an event stream, put together. Exported for its own sake: it is the part that is easy to get wrong. */
export function parser(emit) {
  let rest = '';
  let message = { id: null, event: 'message', data: [] };
  return (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const ended of lines) {
      const line = ended.endsWith('\r') ? ended.slice(0, -1) : ended;
      if (line === '') {
        if (message.data.length || message.id !== null) emit({ ...message, data: message.data.join('\n') });
        message = { id: null, event: 'message', data: [] };
        continue;
      }
      const colon = line.indexOf(':');
      if (colon === 0) continue;
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (name === 'data') message.data.push(value);
      else if (name === 'id' || name === 'event') message[name] = value;
    }
  };
}

function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        done();
      },
      { once: true },
    );
  });
}
