// Times in the viewer's zone, dialogs of verbs, and pages that follow what happens. No library, no network but ours.
(() => {
  "use strict";
  const exact = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
  const ago = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "narrow" });

  function relative(date) {
    const seconds = (date - Date.now()) / 1000;
    const size = Math.abs(seconds);
    if (size < 60) return ago.format(Math.round(seconds), "second");
    if (size < 3600) return ago.format(Math.round(seconds / 60), "minute");
    if (size < 172800) return ago.format(Math.round(seconds / 3600), "hour");
    if (size < 5184000) return ago.format(Math.round(seconds / 86400), "day");
    return exact.format(date);
  }

  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const date = new Date(time.dateTime);
      if (Number.isNaN(date.getTime()) || "fixed" in time.dataset) continue;
      const isRelative = "relative" in time.dataset;
      time.textContent = isRelative ? relative(date) : exact.format(date);
      const utc = time.title.split("\n")[0];
      time.title = isRelative ? `${utc}\n${exact.format(date)} here` : utc;
    }
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens)?.showModal();
    const closer = event.target.closest("[data-closes]");
    if (closer) closer.closest("dialog")?.close();
    if (event.target.matches("dialog.sp-dialog")) event.target.close();
  });

  async function refresh(region) {
    const isBusy = document.hidden || document.querySelector("dialog[open]") || String(document.getSelection());
    if (isBusy) return;
    const answer = await fetch(location.href, { credentials: "same-origin", headers: { "X-Live": "1" } });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(region.id);
    if (!fresh || document.querySelector("dialog[open]")) return;
    const opened = [...region.querySelectorAll("details[open][id]")].map((details) => details.id);
    const scrolled = [...region.querySelectorAll(".sp-scroll, .sp-pre")].map((box) => [box.scrollLeft, box.scrollTop]);
    const focused = region.contains(document.activeElement) && document.activeElement.dataset.opens;
    region.innerHTML = fresh.innerHTML;
    opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    region.querySelectorAll(".sp-scroll, .sp-pre").forEach((box, index) => {
      if (scrolled[index]) [box.scrollLeft, box.scrollTop] = scrolled[index];
    });
    if (focused) region.querySelector(`[data-opens="${focused}"]`)?.focus();
    if (!("live" in fresh.dataset)) delete region.dataset.live;
    showTimes(region);
  }

  document.addEventListener("DOMContentLoaded", () => {
    showTimes(document);
    setInterval(() => showTimes(document), 1000);
    const region = document.querySelector("[data-live]");
    if (!region) return;
    const follow = async () => {
      if (!("live" in region.dataset)) return;
      try { await refresh(region); } catch { /* the server is away: the next look tries again */ }
      setTimeout(follow, Number(region.dataset.live || 5) * 1000);
    };
    setTimeout(follow, Number(region.dataset.live) * 1000);
  });
})();
