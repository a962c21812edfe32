// What leaves the page: files, the link to the state, and the lines that compute the same elsewhere.

export class Leave {
  constructor(parts, model, files) {
    Object.assign(this, { ...parts, model });
    this.links = files.map((name) => Object.assign(document.createElement("a"), { textContent: name, download: name }));
    this.downloads.replaceChildren(...this.links);
    this.copy.addEventListener("click", () => this.copied());
  }

  async copied() {
    this.link.select();
    try {
      await navigator.clipboard.writeText(this.link.value);
      this.copy.textContent = "Copied";
    } catch {
      this.copy.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (this.copy.textContent = "Copy"), 1500);
  }

  // The address bar holds the state, so that reloading shows it again.
  show() {
    const query = this.model.query();
    history.replaceState(null, "", `/?${query}`);
    this.link.value = `${location.origin}/?${query}`;
    for (const link of this.links) link.href = `/download/${link.textContent}?${query}`;
  }

  snippets({ python, command, toml }) {
    this.python.textContent = python;
    this.command.textContent = `cat > problem.toml <<'END'\n${toml}END\n${command}\n`;
  }
}
