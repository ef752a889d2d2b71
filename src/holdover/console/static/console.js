// Keeps what is open up to date: an event says that something has changed, the page is asked for again, and of its parts
// marked data-live those that differ are put in the place of the old. Without this script the page is whole; reload it.
"use strict";
(() => {
  const words = document.getElementById("live-words");
  const line = document.getElementById("live");
  const news = document.getElementById("news");
  let asking = false;
  let again = false;

  function stands(kind, said) {
    line.dataset.stands = kind;
    words.textContent = said;
  }

  function put(fresh) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(old.id);
      if (!other || other.innerHTML === old.innerHTML) continue;
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      const open = [...old.querySelectorAll("details")].map((one) => one.open);
      old.replaceChildren(...document.adoptNode(other).childNodes);
      [...old.querySelectorAll("details")].forEach((one, at) => { if (open[at]) one.open = true; });
      if (focused) (document.getElementById(focused) || document.getElementById("main")).focus();
    }
    document.title = fresh.title;
    document.body.dataset.version = fresh.body.dataset.version || "";
  }

  async function ask() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      do {
        again = false;
        const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "manual", cache: "no-store" });
        if (answer.type === "opaqueredirect") { location.reload(); return; }
        if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
        else if (answer.status === 503) stands("lost", "Not live: the store cannot be read. What you see may be old.");
      } while (again);
    } catch {
      stands("lost", "Not live: the console does not answer. What you see may be old.");
    } finally {
      asking = false;
    }
  }

  function listen() {
    const stream = new EventSource("/live");
    stream.addEventListener("now", (event) => {
      const told = JSON.parse(event.data);
      stands("live", "Live: changes show by themselves.");
      if (told.said) news.textContent = told.said;
      if (told.version !== document.body.dataset.version) ask();
    });
    stream.addEventListener("lost", () => {
      stands("lost", "Not live: the store cannot be read. What you see may be old.");
    });
    stream.addEventListener("over", () => { stream.close(); location.reload(); });
    stream.addEventListener("error", () => {
      stands("lost", "Not live: trying to reach the console again. What you see may be old.");
      // Refused, so the browser does not try again by itself. No reload here: what is typed must stay.
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => { ask(); listen(); }, 5000);
    });
  }

  listen();
  for (const one of document.querySelectorAll("[data-every]")) setInterval(ask, Number(one.dataset.every) * 1000);

  const problem = document.getElementById("problem");
  if (problem) problem.focus();
})();
