// Keeps an open page up to date: after an event that says something has changed, the page is fetched and its data-live
// parts that differ are replaced. Without this script the page is complete; reload it to see changes.
"use strict";
(() => {
  const words = document.getElementById("live-words");
  const line = document.getElementById("live");
  const news = document.getElementById("news");
  let isRefreshing = false;
  let isRefreshWanted = false;

  function showStatus(status, message) {
    line.dataset.status = status;
    words.textContent = message;
  }

  function replaceParts(fresh) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(old.id);
      if (!other || other.innerHTML === old.innerHTML) continue;
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      const open = [...old.querySelectorAll("details")].map((element) => element.open);
      old.replaceChildren(...document.adoptNode(other).childNodes);
      [...old.querySelectorAll("details")].forEach((element, index) => { if (open[index]) element.open = true; });
      if (focused) (document.getElementById(focused) || document.getElementById("main")).focus();
    }
    document.title = fresh.title;
    document.body.dataset.version = fresh.body.dataset.version || "";
  }

  async function refresh() {
    if (isRefreshing) { isRefreshWanted = true; return; }
    isRefreshing = true;
    try {
      do {
        isRefreshWanted = false;
        const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "manual", cache: "no-store" });
        if (answer.type === "opaqueredirect") { location.reload(); return; }
        if (answer.ok) replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"));
        else if (answer.status === 503) showStatus("lost", "Not live: the store cannot be read. What you see may be old.");
      } while (isRefreshWanted);
    } catch {
      showStatus("lost", "Not live: the console does not answer. What you see may be old.");
    } finally {
      isRefreshing = false;
    }
  }

  function listen() {
    const stream = new EventSource("/live");
    stream.addEventListener("now", (event) => {
      const state = JSON.parse(event.data);
      showStatus("live", "Live: changes show by themselves.");
      if (state.message) news.textContent = state.message;
      if (state.version !== document.body.dataset.version) refresh();
    });
    stream.addEventListener("lost", () => {
      showStatus("lost", "Not live: the store cannot be read. What you see may be old.");
    });
    stream.addEventListener("over", () => { stream.close(); location.reload(); });
    stream.addEventListener("error", () => {
      showStatus("lost", "Not live: trying to reach the console again. What you see may be old.");
      // Refused, so the browser does not try again by itself. No reload here: what is typed must stay.
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => { refresh(); listen(); }, 5000);
    });
  }

  listen();
  for (const element of document.querySelectorAll("[data-every]")) setInterval(refresh, Number(element.dataset.every) * 1000);

  const problem = document.getElementById("problem");
  if (problem) problem.focus();
})();
