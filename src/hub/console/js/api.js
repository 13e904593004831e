// Calls of the hub. Each failure has the hub's own sentence, which names the field and the remedy.

import { t } from './i18n.js';
import { kept } from './store.js';

/** Where the token lies: gone with the tab. */
export const TOKEN = 'cogo.token';

/** A call that was refused, or did not get through (`code` is then `unreachable`). */
export class Failure extends Error {
  constructor({ code, message, status = 0, traceId = null, retryAfterMs = null }) {
    super(message);
    Object.assign(this, { code, status, traceId, retryAfterMs });
  }

  get isLost() {
    return this.code === 'unreachable';
  }
}

const watchers = new Set();

/** Tells of each call whether the hub was there: `true`, or `false`. */
export function watchConnection(run) {
  watchers.add(run);
}

export function tell(reachable) {
  for (const run of watchers) run(reachable);
}

export function headers(more = {}) {
  const token = kept(TOKEN, 'sessionStorage');
  return token ? { 'x-admin-token': token, ...more } : { ...more };
}

/** Whose tenant's tools are shown and called; an operator may choose. */
let tenant = null;
export function actFor(name) {
  tenant = name;
}

function address(path, query) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== '') asked.set(name, value);
  }
  return asked.size ? `${path}?${asked}` : path;
}

/** The answer as it came. Only a path of this hub is ever asked. */
export async function call(path, { method = 'GET', query, body, signal, more } = {}) {
  const sent = headers({ ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...more });
  if (tenant) sent['x-cogo-tenant'] = tenant;
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: 'omit',
      mode: 'same-origin',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    tell(false);
    throw new Failure({ code: 'unreachable', message: t('error.unreachable') });
  }
  // What a proxy says of a hub that is away is no answer of the hub's.
  tell(![502, 504].includes(response.status));
  if (!response.ok) throw await failureOf(response);
  return response;
}

export async function failureOf(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // Not the hub's words: somebody in between.
  }
  const after = Number(response.headers.get('retry-after'));
  return new Failure({
    code: told.code ?? `http_${response.status}`,
    message: told.message ?? t('error.http', { status: response.status }),
    status: response.status,
    traceId: told.trace_id ?? null,
    retryAfterMs: told.retry_after_ms ?? (after > 0 ? after * 1000 : null),
  });
}

export async function get(path, query, signal) {
  return (await call(path, { query, signal })).json();
}

export async function post(path, body, options = {}) {
  return (await call(path, { ...options, method: 'POST', body })).json();
}
