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
    const copier = event.target.closest("[data-copies]");
    if (copier) copyText(copier, document.getElementById(copier.dataset.copies)?.textContent ?? "");
  });

  async function copyText(button, text) {
    const label = button.lastChild, before = label.textContent;
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch { label.textContent = "Select it and copy"; }  // no right to the clipboard, or no secure context
    setTimeout(() => { label.textContent = before; }, 2000);
  }

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
    for (const part of region.querySelectorAll("[data-part][id]")) {  // fetched apart: kept until it is fetched anew
      fresh.querySelector(`[id="${part.id}"]`)?.replaceWith(document.importNode(part, true));
    }
    region.innerHTML = fresh.innerHTML;
    opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    region.querySelectorAll(".sp-scroll, .sp-pre").forEach((box, index) => {
      if (scrolled[index]) [box.scrollLeft, box.scrollTop] = scrolled[index];
    });
    if (focused) region.querySelector(`[data-opens="${focused}"]`)?.focus();
    if (!("live" in fresh.dataset)) delete region.dataset.live;
    showTimes(region);
  }

  // Parts that take longer than the page: fetched after it, in the viewer's zone, and again each minute.
  async function fetchPart(id) {
    const part = document.getElementById(id);
    if (!part || document.hidden || part.contains(document.activeElement)) return;
    const zone = encodeURIComponent(Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");
    const answer = await fetch(`${part.dataset.part}&zone=${zone}`, { credentials: "same-origin" });
    const still = document.getElementById(id);
    if (answer.ok && !answer.redirected && still) still.innerHTML = await answer.text();
  }

  function followPart(id) {
    const look = async () => {
      try { await fetchPart(id); } catch { /* the server is away: the next look tries again */ }
      setTimeout(look, 60000);
    };
    look();
  }

  // The agenda opens in the viewer's zone: its links say no zone of their own.
  function giveZone() {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!zone) return;
    for (const link of document.querySelectorAll('a[href$="/schedule/agenda/"]')) {
      link.search = `?zone=${encodeURIComponent(zone)}`;
    }
  }

  // A socket says that something has changed, and then the page is read again; without one the page is read every few
  // seconds. A socket that stays open still lets the page be read twice a minute.
  function followChanges(region) {
    const every = Number(region.dataset.live || 5) * 1000;
    const soonest = every / 3, withSocket = 30000, longestWait = 60000;
    let isOpen = false, hasNews = false, read = Date.now(), wait = 1000;

    const subject = location.pathname.match(/\/execution\/execution\/([0-9a-f-]{36})\//);
    const wishes = subject
      ? [{ subscribe: "step_runs", filter: { execution: subject[1] } }, { subscribe: "executions", filter: { id: subject[1] } }]
      : ["executions", "dead_letters", "schedules", "queues"].map((kind) => ({ subscribe: kind }));

    function connect() {
      if (!("live" in region.dataset)) return;
      const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/`);
      socket.onopen = () => wishes.forEach((wish) => socket.send(JSON.stringify({ ...wish, brief: true })));
      socket.onmessage = (event) => {
        const message = JSON.parse(event.data);
        if (message.type === "subscribed") { isOpen = true; wait = 1000; }
        if (["subscribed", "rows", "reset"].includes(message.type)) hasNews = true;
        if (!("live" in region.dataset)) socket.close();
      };
      socket.onclose = () => {
        isOpen = false;
        setTimeout(connect, wait);
        wait = Math.min(wait * 2, longestWait);
      };
    }

    async function look() {
      if (!("live" in region.dataset)) return;
      const age = Date.now() - read;
      if (age >= (isOpen ? withSocket : every) || (hasNews && age >= soonest)) {
        hasNews = false;
        try { await refresh(region); } catch { /* the server is away: the next look tries again */ }
        read = Date.now();
      }
      setTimeout(look, 250);
    }

    connect();
    setTimeout(look, 250);
  }

  // A text that the server checks while it is typed, and tells what is wrong with it.
  function checkWhileTyped(area) {
    const told = document.createElement("div");
    told.className = "sp-checked";
    told.setAttribute("role", "status");
    area.after(told);
    let waiting, asked = 0;
    const check = async () => {
      const mine = ++asked;
      const body = new FormData();
      body.set("definition", area.value);
      body.set("csrfmiddlewaretoken", area.form.elements.csrfmiddlewaretoken.value);
      try {
        const answer = await fetch(area.dataset.checkedBy, { method: "POST", body, credentials: "same-origin" });
        if (!answer.ok || answer.redirected || mine !== asked) return;
        const { problems } = await answer.json();
        told.classList.toggle("sp-bad", problems.length > 0);
        told.classList.toggle("sp-good", problems.length === 0);
        told.replaceChildren(...(problems.length ? problems : [{ at: "", rule: "It can be run." }]).map(({ at, rule }) => {
          const line = document.createElement("p");
          const place = document.createElement("b");
          place.textContent = at ? `${at} ` : "";
          line.append(place, rule);
          return line;
        }));
      } catch { /* the server is away: saving will check it */ }
    };
    area.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(check, 350); });
    check();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-checked-by]").forEach(checkWhileTyped);
    showTimes(document);
    giveZone();
    document.querySelectorAll("[data-part][id]").forEach((part) => followPart(part.id));
    setInterval(() => showTimes(document), 1000);
    const region = document.querySelector("[data-live]");
    if (!region) return;
    followChanges(region);
  });
})();
