// Copies texts, and changes between light and dark. Everything else comes from the server.
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const toast = document.getElementById("toast");
    try {
      await navigator.clipboard.writeText(copy.dataset.copy);
      toast.textContent = "Copied";
    } catch {
      toast.textContent = "The browser does not allow copying.";
    }
    toast.classList.add("shown");
    setTimeout(() => toast.classList.remove("shown"), 1500);
  } else if (event.target.closest("[data-theme]")) {
    const isDark = !document.body.classList.contains("body--dark");
    localStorage.setItem("deriva-ml-theme", isDark ? "dark" : "light");
    location.reload(); // charts take their colours when they are made
  }
});

function applyTheme() {
  const stored = localStorage.getItem("deriva-ml-theme");
  if (stored && window.Quasar) Quasar.Dark.set(stored === "dark");
}

// NiceGUI sets the mode of the system while the page is built
document.addEventListener("DOMContentLoaded", () => setTimeout(applyTheme, 0));
