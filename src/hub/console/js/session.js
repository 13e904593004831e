// Who is at the desk, and whether they may act.

import { get, TOKEN } from './api.js';
import { kept, keep } from './store.js';

const state = { known: false, admin: false, reads: false, openReads: false, version: '', wrong: false };
const watchers = new Set();

export const session = state;

export function watchSession(run) {
  watchers.add(run);
}

function changed() {
  for (const run of watchers) run();
}

export function hasToken() {
  return kept(TOKEN, 'sessionStorage') !== null;
}

/** Whether the switch hides every action. */
export function isSwitchedOff() {
  return kept('cogo.readonly') === 'on';
}

export function switchReadOnly(on) {
  keep('cogo.readonly', on ? 'on' : null);
  changed();
}

/** Whether actions are shown. The hub decides all the same. */
export function mayAct() {
  return state.admin && !isSwitchedOff();
}

/** Asks the hub what the token allows. */
export async function look(signal) {
  const told = await get('/api/session', {}, signal);
  const before = JSON.stringify(state);
  Object.assign(state, {
    known: true,
    admin: told.admin,
    reads: told.reads,
    openReads: told.open_reads,
    version: told.version,
    wrong: told.token === 'wrong',
  });
  if (JSON.stringify(state) !== before) changed();
}

/** Signs in; `false` where the token is not the hub's, which is then forgotten. */
export async function signIn(token) {
  const before = kept(TOKEN, 'sessionStorage');
  keep(TOKEN, token, 'sessionStorage');
  try {
    await look();
  } catch (error) {
    keep(TOKEN, before, 'sessionStorage');
    throw error;
  }
  if (state.admin) return true;
  keep(TOKEN, null, 'sessionStorage');
  await look();
  return false;
}

export async function signOut() {
  keep(TOKEN, null, 'sessionStorage');
  await look();
  changed();
}
