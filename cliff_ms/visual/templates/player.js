// A video's overlay, the bodies in 3D beside it, and the map show the same frame: the one that the overlay shows.
(() => {
  "use strict";
  for (const article of document.querySelectorAll("article.clip")) {
    const find = (name) => article.querySelector(name);
    const [video, slot, button, bar, text] = ["video", ".slot", ".bar button", ".bar input", ".bar output"].map(find);
    const { fps, starts, people } = JSON.parse(find(".timing").textContent);
    const ways = [...article.querySelectorAll(".map polyline")];
    const boxes = [...article.querySelectorAll("input[type=checkbox]")];
    // Which pose of a person belongs to a frame, -1 for none.
    const poses = people.map((own) => {
      const rows = new Int32Array(starts.length).fill(-1);
      own.forEach((frame, row) => (rows[frame] = row));
      return rows;
    });

    let shown = 0;
    function show(frame) {
      shown = frame;
      bar.value = frame;
      text.value = `${(starts[frame] / fps).toFixed(2)} s, frame ${frame}`;
      const rows = poses.map((own, k) => (boxes[k].checked ? own[frame] : -1));
      ways.forEach((way, k) => {
        const spot = way.nextElementSibling;
        way.setAttribute("visibility", boxes[k].checked ? "visible" : "hidden");
        spot.setAttribute("visibility", rows[k] < 0 ? "hidden" : "visible");
        if (rows[k] < 0) return;
        const { x, y } = way.points[rows[k]];
        spot.setAttribute("d", `M${x} ${y}h0`);
      });
      if (!slot) return;
      Object.assign(slot, { poses: rows, chosen: boxes.map((box) => box.checked) });
      slot.dispatchEvent(new Event("pose"));
    }

    // The last frame that is shown from then on, or before.
    function frameAt(time) {
      const picture = Math.floor(time * fps + 0.1);
      let [low, high] = [0, starts.length - 1];
      while (low < high) {
        const middle = Math.ceil((low + high) / 2);
        if (starts[middle] <= picture) low = middle;
        else high = middle - 1;
      }
      return low;
    }
    const middleOf = (frame) => (starts[frame] + 0.5) / fps;

    // Where the video cannot be played, the bodies move by this clock.
    let clock = null;
    const works = () => video.readyState > 0;
    function tick(now) {
      if (!clock) return;
      const time = clock.from + (now - clock.since) / 1000;
      show(frameAt(time));
      if (shown === starts.length - 1) stop();
      else requestAnimationFrame(tick);
    }
    function stop() {
      clock = null;
      if (works()) video.pause();
      else button.textContent = "Play";
    }
    function play() {
      const from = shown === starts.length - 1 ? 0 : shown;
      if (works()) {
        if (from !== shown) video.currentTime = 0;
        video.play();
        return;
      }
      clock = { from: middleOf(from), since: performance.now() };
      button.textContent = "Pause";
      requestAnimationFrame(tick);
    }

    button.addEventListener("click", () => (button.textContent === "Play" ? play() : stop()));
    bar.addEventListener("input", () => {
      stop();
      show(Number(bar.value));
      if (works()) video.currentTime = middleOf(shown);
    });
    boxes.forEach((box) => box.addEventListener("change", () => show(shown)));
    video.addEventListener("play", () => (button.textContent = "Pause"));
    video.addEventListener("pause", () => (button.textContent = "Play"));
    if (video.requestVideoFrameCallback) {
      const follow = (_, picture) => {
        show(frameAt(picture.mediaTime));
        video.requestVideoFrameCallback(follow);
      };
      video.requestVideoFrameCallback(follow);
    } else {
      video.addEventListener("timeupdate", () => show(frameAt(video.currentTime)));
    }
    show(0);
  }

  const large = document.querySelector("dialog");
  for (const image of document.querySelectorAll("figure img")) {
    const open = () => {
      Object.assign(large.firstElementChild, { src: image.src, alt: image.alt });
      large.showModal();
    };
    image.tabIndex = 0;
    image.addEventListener("click", open);
    image.addEventListener("keydown", (e) => e.key === "Enter" && open());
  }
  large.addEventListener("click", () => large.close());
})();
