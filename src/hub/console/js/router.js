// Which page is shown: the part of the address behind `#`, so that a page can be sent to a colleague.

/** `#/traces/abc?tool=x` as `{ page: 'traces', parts: ['abc'], query: { tool: 'x' } }`. */
export function here() {
  const [path, search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [page = '', ...parts] = path.split('/').map(decode);
  return { page: page || 'overview', parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a page. */
export function to(page, parts = [], query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '' && value !== null && value !== undefined));
  const path = [page, ...parts].map(encodeURIComponent).join('/');
  return `#/${path}${asked.size ? `?${asked}` : ''}`;
}

/** Remembers filters in the address without a step of the history for each letter. */
export function remember(query) {
  const { page, parts } = here();
  history.replaceState(null, '', to(page, parts, query));
}
