// What this browser remembers. One that keeps nothing is no error.

export function kept(name, where = 'localStorage') {
  try {
    return globalThis[where].getItem(name);
  } catch {
    return null;
  }
}

export function keep(name, value, where = 'localStorage') {
  try {
    if (value === null) globalThis[where].removeItem(name);
    else globalThis[where].setItem(name, value);
  } catch {
    // It holds for as long as the page is open.
  }
}
