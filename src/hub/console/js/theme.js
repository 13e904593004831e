// Before anything is drawn: else a page in the other theme would flash.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem('cogo.theme');
  } catch {
    // A browser that keeps nothing: the system's theme holds.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
