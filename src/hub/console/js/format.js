// Numbers, spans and times, as people read them.

import { current, t } from './i18n.js';

const NONE = '–';

export function number(n) {
  return n === null || n === undefined ? NONE : new Intl.NumberFormat(current()).format(n);
}

export function compact(n) {
  if (n === null || n === undefined) return NONE;
  return new Intl.NumberFormat(current(), { notation: n >= 10000 ? 'compact' : 'standard', maximumFractionDigits: 1 }).format(n);
}

export function percent(part, whole) {
  if (!whole) return NONE;
  const share = part / whole;
  // 99.96 % of all is not all.
  const digits = share > 0.99 && share < 1 ? 2 : 1;
  return new Intl.NumberFormat(current(), { style: 'percent', maximumFractionDigits: digits }).format(Math.floor(share * 1e4) / 1e4);
}

/** A span: `12 ms`, `3.4 s`, `5 min 10 s`, `2 h 5 min`, `3 d 4 h`. */
export function span(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return NONE;
  const of = (n, unit, digits = 0) =>
    `${new Intl.NumberFormat(current(), { maximumFractionDigits: digits }).format(n)}\u202f${t(`unit.${unit}`)}`;
  const two = (big, bigUnit, small, smallUnit) => (small ? `${of(big, bigUnit)} ${of(small, smallUnit)}` : of(big, bigUnit));
  const abs = Math.abs(ms);
  if (abs < 1000) return of(Math.round(ms), 'ms');
  if (abs < 10_000) return of(ms / 1000, 's', 2);
  if (abs < 59_950) return of(ms / 1000, 's', 1);
  const seconds = Math.round(abs / 1000);
  if (seconds < 3600) return two(Math.floor(seconds / 60), 'min', seconds % 60, 's');
  if (seconds < 86_400) return two(Math.floor(seconds / 3600), 'h', Math.floor((seconds % 3600) / 60), 'min');
  return two(Math.floor(seconds / 86_400), 'd', Math.floor((seconds % 86_400) / 3600), 'h');
}

export function bytes(n) {
  if (n === null || n === undefined) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let left = n;
  for (; left >= 1024 && at < units.length - 1; at += 1) left /= 1024;
  return `${new Intl.NumberFormat(current(), { maximumFractionDigits: left < 10 && at > 0 ? 1 : 0 }).format(left)}\u202f${units[at]}`;
}

/** A time of day; with the date where it is not today. */
export function time(text, { ms = false } = {}) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return NONE;
  const pad = (n, width = 2) => String(n).padStart(width, '0');
  const clock = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}${ms ? `.${pad(at.getMilliseconds(), 3)}` : ''}`;
  if (at.toDateString() === new Date().toDateString()) return clock;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock}`;
}

/** How long ago. */
export function ago(text) {
  const ms = Date.now() - new Date(text).getTime();
  if (Number.isNaN(ms)) return NONE;
  if (ms < 2000) return t('time.now');
  const [n, unit] =
    ms < 60_000 ? [ms / 1000, 'second'] : ms < 3_600_000 ? [ms / 60_000, 'minute'] : ms < 86_400_000 ? [ms / 3_600_000, 'hour'] : [ms / 86_400_000, 'day'];
  return new Intl.RelativeTimeFormat(current(), { style: 'narrow' }).format(-Math.floor(n), unit);
}

/** The end of an id, which is what differs between those of one minute. */
export function short(id) {
  return id ? `…${String(id).slice(-8)}` : NONE;
}
