// One 3D viewer for the whole page. It moves into the picture whose button is pressed.
// World frame: x right, y up, z towards the photo's camera, metres; the camera that took the photo is at the origin.
(() => {
  "use strict";
  const VERTEX = `#version 300 es
    layout(location = 0) in vec3 position;
    layout(location = 1) in vec3 normal;
    layout(location = 2) in uvec4 joints;
    layout(location = 3) in vec4 weights;
    uniform mat4 view, projection;
    uniform vec4 place;  // offset in m, metres per unit
    uniform bool moved;
    uniform vec4 bones[72];  // three rows of each of 24 joints: from the body at rest to the world
    out vec3 n;
    void main() {
      mat4 bone = mat4(1.0);
      if (moved) {
        vec4 rows[3];
        for (int k = 0; k < 3; k++) {
          rows[k] = vec4(0.0);
          for (int j = 0; j < 4; j++) rows[k] += weights[j] * bones[3u * joints[j] + uint(k)];
          rows[k] /= dot(weights, vec4(1.0));
        }
        bone = transpose(mat4(rows[0], rows[1], rows[2], vec4(0.0, 0.0, 0.0, 1.0)));
      }
      n = mat3(view) * mat3(bone) * normal;
      gl_Position = projection * view * bone * vec4(place.xyz + place.w * position, 1.0);
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec3 n;
    uniform vec4 colour;
    uniform bool lit;
    out vec4 result;
    void main() {
      vec3 side = normalize(gl_FrontFacing ? n : -n);
      float facing = dot(side, normalize(vec3(-0.35, 0.6, 0.72)));
      float light = lit ? 0.4 + 0.6 * (0.5 * max(facing, 0.0) + 0.25 * (1.0 + facing)) : 1.0;
      result = vec4(colour.rgb * light, 1.0) * colour.a;
    }`;
  const VIEWS = { "3/4": [0.6, 0.25], Camera: [0, 0], Side: [Math.PI / 2, 0], Top: [0, Math.PI / 2] };
  const FIELD = 0.6; // rad, the smaller side of the view

  const slots = [...document.querySelectorAll(".slot")];
  if (!slots.length) return;
  const say = (text) => slots.forEach((slot) => {
    slot.replaceChildren(Object.assign(document.createElement("p"), { textContent: text }));
  });

  const box = document.createElement("div");
  box.className = "viewer";
  box.innerHTML = '<canvas tabindex="0" aria-label="3D view of the people"></canvas><div class="turn"></div><div class="scale"></div>';
  const canvas = box.querySelector("canvas");
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
  if (!gl) return say("The 3D view needs WebGL 2, which this browser does not offer. The .glb files open in any 3D viewer.");
  canvas.addEventListener("webglcontextlost", () => say("The graphics driver stopped the 3D view. Reload the page."));

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const packed = JSON.parse(document.getElementById("faces").textContent);
  const faces = packed.bytes === 2 ? new Uint16Array(bytes(packed.data)) : new Uint32Array(bytes(packed.data));

  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return say("The 3D view could not start in this browser.");
  gl.useProgram(program);
  const at = Object.fromEntries(["view", "projection", "place", "colour", "lit", "moved", "bones"].map((k) => [k, gl.getUniformLocation(program, k)]));
  const fill = (target, data) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return buffer;
  };
  const faceBuffer = fill(gl.ELEMENT_ARRAY_BUFFER, faces);
  gl.vertexAttribI4ui(2, 0, 0, 0, 0); // of what has no joints: of the shader's type, or nothing is drawn
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  let scene = null;
  let eye = { yaw: 0, pitch: 0, far: 1, target: [0, 0, 0] };

  // Area-weighted vertex normals.
  function normalsOf(p) {
    const n = new Float32Array(p.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const u = [p[b] - p[a], p[b + 1] - p[a + 1], p[b + 2] - p[a + 2]];
      const v = [p[c] - p[a], p[c + 1] - p[a + 1], p[c + 2] - p[a + 2]];
      for (let k = 0; k < 3; k++) {
        const [i, j] = [(k + 1) % 3, (k + 2) % 3];
        const area = u[i] * v[j] - u[j] * v[i];
        n[a + k] += area; n[b + k] += area; n[c + k] += area;
      }
    }
    return n; // the shader normalises
  }

  // What moves the skin of a body in one of its poses: three rows of each joint's matrix, and where the joints are.
  function bonesOf(person, parents, row) {
    const bones = new Float32Array(12 * parents.length), places = [];
    parents.forEach((parent, joint) => {
      const rest = person.joints[joint], at = 4 * (row * parents.length + joint);
      const [x, y, z, w] = Array.from(person.turns.subarray(at, at + 4), (value) => value / 32767);
      let turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
      ];
      places[joint] = [...person.pelvis.subarray(3 * row, 3 * row + 3)];
      if (joint) {
        const above = [0, 1, 2].map((k) => bones.subarray(12 * parent + 4 * k, 12 * parent + 4 * k + 4));
        places[joint] = above.map((line) => dot(line, rest) + line[3]);
        turn = above.map((line) => [0, 1, 2].map((column) => line[0] * turn[0][column] + line[1] * turn[1][column] + line[2] * turn[2][column]));
      }
      turn.forEach((line, k) => bones.set([...line, places[joint][k] - dot(line, rest)], 12 * joint + 4 * k));
    });
    return { bones, places };
  }

  // Around all that somebody does, by some hundred of the poses; the skin is within a hand of the joints.
  function boundsOf(person, parents) {
    const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
    const count = person.pelvis.length / 3, step = Math.ceil(count / 100);
    for (let row = 0; row < count; row += step) {
      for (const place of bonesOf(person, parents, row).places) {
        place.forEach((value, k) => {
          low[k] = Math.min(low[k], value - 0.1);
          high[k] = Math.max(high[k], value + 0.1);
        });
      }
    }
    return { low, high };
  }
  const boxAround = (boxes) => ({
    low: [0, 1, 2].map((k) => Math.min(...boxes.map((box) => box.low[k]))),
    high: [0, 1, 2].map((k) => Math.max(...boxes.map((box) => box.high[k]))),
  });

  // A level grid under the lowest foot, from the people to the camera, and the camera as a small pyramid.
  function linesOf(low, high) {
    const [x0, x1, z0, z1] = [Math.min(low[0], 0), Math.max(high[0], 0), low[2], Math.max(high[2], 0)];
    const step = 10 ** Math.max(0, Math.ceil(Math.log10(Math.max(x1 - x0, z1 - z0) / 50)));
    const [a, b, c, d] = [Math.floor(x0 / step - 0.5), Math.ceil(x1 / step + 0.5), Math.floor(z0 / step - 0.5), Math.ceil(z1 / step)];
    const grid = [], y = low[1];
    for (let i = a; i <= b; i++) grid.push(i * step, y, c * step, i * step, y, d * step);
    for (let i = c; i <= d; i++) grid.push(a * step, y, i * step, b * step, y, i * step);
    const rim = [[-0.2, -0.15, -0.35], [0.2, -0.15, -0.35], [0.2, 0.15, -0.35], [-0.2, 0.15, -0.35]];
    const camera = rim.flatMap((corner, k) => [0, 0, 0, ...corner, ...corner, ...rim[(k + 1) % 4]]);
    return { step, grid: grid.length / 3, count: (grid.length + camera.length) / 3, buffer: fill(gl.ARRAY_BUFFER, new Float32Array([...grid, ...camera])) };
  }

  function open(slot) {
    if (scene) {
      scene.buffers.forEach((buffer) => gl.deleteBuffer(buffer));
      scene.slot.querySelector("button").hidden = false;
    }
    const data = JSON.parse(slot.parentElement.querySelector("script").textContent);
    const buffers = [];
    const keep = (array) => { buffers.push(fill(gl.ARRAY_BUFFER, array)); return buffers.at(-1); };
    const people = data.people.map((packed) => {
      const vertices = new Int16Array(bytes(packed.vertices));
      const person = { ...packed, vertices: keep(vertices), normals: keep(normalsOf(vertices)) };
      if (!data.parents) return person;
      Object.assign(person, { turns: new Int16Array(bytes(packed.turns)), pelvis: new Float32Array(bytes(packed.pelvis)) });
      return Object.assign(person, boundsOf(person, data.parents));
    });
    const influences = data.parents && { joints: keep(new Uint8Array(bytes(data.joints))), weights: keep(new Uint8Array(bytes(data.weights))) };
    const whole = data.parents ? boxAround(people) : data;
    const lines = linesOf(whole.low, whole.high);
    buffers.push(lines.buffer);
    scene = { slot, whole, lines, people, buffers, parents: data.parents, influences };
    box.querySelector(".scale").textContent = `grid: ${lines.step} m`;
    slot.querySelector("button").hidden = true;
    slot.append(box);
    look("3/4");
  }

  // Rows of the rotation world -> view: right, up, towards the viewer.
  function axes() {
    const [cy, sy, cp, sp] = [Math.cos(eye.yaw), Math.sin(eye.yaw), Math.cos(eye.pitch), Math.sin(eye.pitch)];
    return [[cy, 0, -sy], [-sp * sy, cp, -sp * cy], [cp * sy, sp, cp * cy]];
  }
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

  // Half of the field of view along x and y, as tangents.
  function fields() {
    const tangent = Math.tan(FIELD / 2), ratio = (canvas.clientWidth || 1) / (canvas.clientHeight || 1);
    return ratio < 1 ? [tangent, tangent / ratio] : [tangent * ratio, tangent];
  }

  // Look from there, as near as it can be with all corners of the box around the people in the picture: those of a video
  // who are switched on.
  function look(name) {
    const chosen = scene.parents ? scene.people.filter((_, k) => scene.slot.chosen[k]) : [];
    const { low, high } = chosen.length ? boxAround(chosen) : scene.whole;
    [eye.yaw, eye.pitch] = VIEWS[name];
    eye.target = low.map((l, k) => (l + high[k]) / 2);
    const rows = axes(), tangents = fields();
    eye.far = 0.5;
    for (let corner = 0; corner < 8; corner++) {
      const arm = low.map((l, k) => (corner >> k & 1 ? high[k] : l) - eye.target[k]);
      for (const k of [0, 1]) eye.far = Math.max(eye.far, (1.1 * Math.abs(dot(rows[k], arm))) / tangents[k] + dot(rows[2], arm));
    }
    draw();
  }

  let waiting = false;
  function draw() {
    if (!waiting && scene) requestAnimationFrame(paint);
    waiting = true;
  }

  function paint() {
    waiting = false;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [w, h] = [Math.max(1, Math.round(canvas.clientWidth * ratio)), Math.max(1, Math.round(canvas.clientHeight * ratio))];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    gl.viewport(0, 0, w, h);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const rows = axes();
    const shift = rows.map((row) => -dot(row, eye.target));
    shift[2] -= eye.far;
    gl.uniformMatrix4fv(at.view, true, [...rows.flatMap((row, k) => [...row, shift[k]]), 0, 0, 0, 1]);
    const [tx, ty] = fields(), [near, far] = [eye.far / 50, eye.far * 20 + 50];
    gl.uniformMatrix4fv(at.projection, true, [1 / tx, 0, 0, 0, 0, 1 / ty, 0, 0, 0, 0, (far + near) / (near - far), (2 * far * near) / (near - far), 0, 0, -1, 0]);

    gl.uniform1i(at.lit, 1);
    gl.enableVertexAttribArray(0);
    gl.enableVertexAttribArray(1);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, faceBuffer);
    gl.uniform1i(at.moved, scene.parents ? 1 : 0);
    if (scene.parents) {
      gl.enableVertexAttribArray(2);
      gl.enableVertexAttribArray(3);
      gl.bindBuffer(gl.ARRAY_BUFFER, scene.influences.joints);
      gl.vertexAttribIPointer(2, 4, gl.UNSIGNED_BYTE, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, scene.influences.weights);
      gl.vertexAttribPointer(3, 4, gl.UNSIGNED_BYTE, true, 0, 0);
    }
    for (const [k, person] of scene.people.entries()) {
      if (scene.parents) {
        const row = scene.slot.poses[k];
        if (row < 0) continue;
        gl.uniform4fv(at.bones, bonesOf(person, scene.parents, row).bones);
      }
      gl.uniform4fv(at.place, person.place);
      gl.uniform4f(at.colour, ...person.colour, 1);
      gl.bindBuffer(gl.ARRAY_BUFFER, person.vertices);
      gl.vertexAttribPointer(0, 3, gl.SHORT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, person.normals);
      gl.vertexAttribPointer(1, 3, gl.FLOAT, false, 0, 0);
      gl.drawElements(gl.TRIANGLES, faces.length, packed.bytes === 2 ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT, 0);
    }
    gl.uniform1i(at.lit, 0);
    gl.uniform1i(at.moved, 0);
    gl.uniform4f(at.place, 0, 0, 0, 1);
    for (const attribute of [1, 2, 3]) gl.disableVertexAttribArray(attribute);
    gl.bindBuffer(gl.ARRAY_BUFFER, scene.lines.buffer);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    gl.uniform4f(at.colour, 0.5, 0.54, 0.6, 0.5);
    gl.drawArrays(gl.LINES, 0, scene.lines.grid);
    gl.uniform4f(at.colour, 0.85, 0.3, 0.25, 1);
    gl.drawArrays(gl.LINES, scene.lines.grid, scene.lines.count - scene.lines.grid);
  }

  function turn(dx, dy) {
    eye.yaw -= dx * 0.008;
    eye.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, eye.pitch + dy * 0.008));
    draw();
  }
  function pan(dx, dy) {
    const [right, up] = axes(), metres = (2 * eye.far * Math.tan(FIELD / 2)) / Math.min(canvas.clientWidth, canvas.clientHeight);
    eye.target = eye.target.map((t, k) => t + metres * (dy * up[k] - dx * right[k]));
    draw();
  }
  function zoom(factor) {
    eye.far = Math.max(0.2, Math.min(2000, eye.far * factor));
    draw();
  }

  const fingers = new Map();
  const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y) || 1; };
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, { x: e.clientX, y: e.clientY }); });
  for (const gone of ["pointerup", "pointercancel"]) canvas.addEventListener(gone, (e) => fingers.delete(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    const last = fingers.get(e.pointerId);
    if (!last) return;
    const [dx, dy] = [e.clientX - last.x, e.clientY - last.y], two = fingers.size === 2, before = two ? spread() : 0;
    fingers.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (two) { zoom(before / spread()); pan(dx / 2, dy / 2); }
    else if (e.shiftKey || e.buttons & 2) pan(dx, dy);
    else turn(dx, dy);
  });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(e.deltaY * (e.deltaMode ? 0.04 : 0.0015))); }, { passive: false });
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("dblclick", () => look("3/4"));
  const keys = { ArrowLeft: () => turn(-12, 0), ArrowRight: () => turn(12, 0), ArrowUp: () => turn(0, -12), ArrowDown: () => turn(0, 12), "+": () => zoom(0.9), "-": () => zoom(1.1) };
  canvas.addEventListener("keydown", (e) => { if (keys[e.key]) { e.preventDefault(); keys[e.key](); } });
  for (const name of Object.keys(VIEWS)) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.addEventListener("click", () => look(name));
    box.querySelector(".turn").append(button);
  }
  new ResizeObserver(draw).observe(canvas);
  slots.forEach((slot) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Show in 3D" });
    button.addEventListener("click", () => open(slot));
    slot.addEventListener("pose", () => scene.slot === slot && draw());
    slot.replaceChildren(button);
  });
  open(slots[0]);
})();
