// Light or dark, before anything is painted: the only script that is no module, because modules wait.

(() => {
  const KEY = "bitnet.theme";
  const CHOICES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const stored = () => {
    try {
      const theme = localStorage.getItem(KEY);
      return CHOICES.includes(theme) ? theme : "auto";
    } catch {
      return "auto";
    }
  };

  const apply = (theme) => {
    root.dataset.theme = theme;
  };

  apply(stored());

  /** Takes the next of: as the system says, light, dark. Gives its name. */
  window.nextTheme = () => {
    const theme = CHOICES[(CHOICES.indexOf(root.dataset.theme) + 1) % CHOICES.length];
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Not remembered, but applied.
    }
    apply(theme);
    return theme;
  };
})();
