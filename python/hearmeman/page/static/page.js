// Keeps the page fresh: takes sections from the stream, or asks for them where a proxy holds the stream back.
"use strict";
(() => {
  const SILENCE = 20000, LAG = 4000, POLL = 3000, BACK = 60000;
  let mark = document.body.dataset.mark, source = null, heard = 0, polling = false, since = 0, misses = 0, least = Infinity;

  // Changes `old` into `fresh` where they differ, so that focus, open details and what is typed stay.
  function morph(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) { old.replaceWith(fresh); return; }
    if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
    if (old.nodeType !== Node.ELEMENT_NODE || old.hasAttribute("data-keep")) return;
    // Whether details are open is the visitor's own choice from the moment they are there.
    const theirs = name => name === "open" && old.nodeName === "DETAILS";
    for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value && !theirs(name)) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !theirs(name)) old.removeAttribute(name);
    const keyed = new Map([...old.children].filter(c => c.dataset.key).map(c => [c.dataset.key, c]));
    let place = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const same = next.nodeType === Node.ELEMENT_NODE && next.dataset.key ? keyed.get(next.dataset.key) : null;
      if (same) {
        keyed.delete(next.dataset.key);
        if (same === place) place = place.nextSibling; else old.insertBefore(same, place);
        morph(same, next);
      } else if (place && !(place.dataset && place.dataset.key) && !(next.dataset && next.dataset.key)) {
        const now = place;
        place = place.nextSibling;
        morph(now, next);
      } else old.insertBefore(next, place);
    }
    while (place) { const gone = place; place = place.nextSibling; gone.remove(); }
  }

  function take(parts) {
    for (const [id, html] of Object.entries(parts)) {
      const old = document.getElementById(id);
      const fresh = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
      if (!old || !fresh) continue;
      const log = old.querySelector(".tall");
      const follows = log && log.scrollTop + log.clientHeight > log.scrollHeight - 30;
      morph(old, fresh);
      if (follows) log.scrollTop = log.scrollHeight;
      if (id === "top") document.title = document.querySelector("h1").textContent + " · " + document.querySelector(".pod").textContent + " · hearmeman";
    }
  }

  function say(text) {
    const line = document.getElementById("connection");
    if (line.textContent !== text) line.textContent = text;
    line.hidden = !text;
  }

  // Tells whether something said at `at` (the pod's seconds) came in good time; the two clocks need not agree.
  function prompt(at) {
    const late = Date.now() - 1000 * at;
    least = Math.min(least, late);
    return late - least < LAG;
  }

  function hear(event) {
    const told = JSON.parse(event.data);
    heard = Date.now(); misses = 0;
    // A proxy that fills a buffer first hands on what is old: then the page asks by itself.
    if (!prompt(told.at)) { fall(); return; }
    if (event.lastEventId) mark = event.lastEventId;
    polling = false;
    say("");
    take(told.sections);
  }

  function listen() {
    if (source) source.close();
    heard = Date.now(); misses = 0;
    source = new EventSource("/events?since=" + encodeURIComponent(mark));
    source.addEventListener("sections", hear);
    source.addEventListener("ping", hear);
    // The browser tries again by itself while readyState is CONNECTING; a refusal ends it, and a pod that is gone is soon said so.
    source.onerror = () => { if (source && (source.readyState === EventSource.CLOSED || ++misses > 1)) fall(); };
  }

  function fall() {
    if (source) source.close();
    source = null; since = Date.now();
    if (!polling) { polling = true; poll(); }
  }

  async function poll() {
    if (!polling || document.hidden) { polling = false; return; }
    try {
      const answer = await fetch("/sections?since=" + encodeURIComponent(mark), { headers: { Accept: "application/json" } });
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      const found = await answer.json();
      mark = found.mark; prompt(found.at); take(found.sections); say("");
    } catch { say("The pod does not answer. This page goes on asking."); }
    // Asking goes on while the stream is tried again.
    if (!source && Date.now() - since > BACK) listen();
    if (polling) setTimeout(poll, POLL);
  }

  setInterval(() => { if (source && Date.now() - heard > SILENCE) fall(); }, 2000);
  // A tab that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { if (source) source.close(); source = null; polling = false; } else if (!source && !polling) listen();
  });
  addEventListener("pagehide", () => { if (source) source.close(); source = null; });
  addEventListener("pageshow", event => { if (event.persisted) listen(); });

  document.addEventListener("submit", async event => {
    const form = event.target, button = form.querySelector("button[type=submit]");
    if (!form.action.includes("/actions/")) return;
    event.preventDefault();
    if (button.dataset.confirm && !confirm(button.dataset.confirm)) return;
    const told = form.querySelector(".answer");
    button.disabled = true;
    if (told) told.textContent = "One moment …";
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" } });
      if ((answer.headers.get("Content-Type") || "").startsWith("audio/")) {
        const sound = document.createElement("audio");
        sound.controls = true;
        sound.src = URL.createObjectURL(await answer.blob());
        told.replaceChildren(sound);
        sound.play().catch(() => {});
      } else {
        const said = await answer.json();
        if (told) told.textContent = said.message; else if (!said.ok) alert(said.message);
      }
    } catch { if (told) told.textContent = "The pod did not answer."; } finally { button.disabled = false; }
  });

  const log = document.querySelector(".tall");
  if (log) log.scrollTop = log.scrollHeight;
  prompt(Number(document.body.dataset.at));
  if (!document.hidden) listen();
})();
