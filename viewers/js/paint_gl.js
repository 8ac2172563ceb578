// Paints ids with WebGL2: one texture of ids, one of inks, and a shader that hatches, dims and draws edges.

const WIDE = 4096;

const VERTEX = `#version 300 es
void main() {
  // One triangle that covers the screen.
  vec2 corner = vec2(float((gl_VertexID << 1) & 2), float(gl_VertexID & 2));
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform usampler2D ids;
uniform sampler2D inks;
uniform vec3 panel;
uniform vec3 line;
uniform vec3 free;
out vec4 color;
uint idAt(ivec2 at) { return texelFetch(ids, ivec2(at.y, at.x), 0).r & 0x7fffffffu; }
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  uint id = texelFetch(ids, ivec2(at.y, at.x), 0).r;
  bool edge = (id & 0x80000000u) != 0u;
  id &= 0x7fffffffu;
  if (id == 0u) { color = vec4(panel, 1.0); return; }
  vec4 ink = texelFetch(inks, ivec2(int(id) & ${WIDE - 1}, int(id) >> ${Math.log2(WIDE)}), 0);
  int flags = int(ink.a * 255.0 + 0.5);
  if ((flags & 8) != 0) { color = vec4(free, 1.0); return; }
  vec3 rgb = ink.rgb;
  if ((flags & 1) != 0 && !edge && ((at.x + at.y) & 7) < 2) rgb = mix(rgb, panel, 0.45);
  if ((flags & 4) != 0) rgb = mix(rgb, panel, 0.78);
  if ((flags & 2) != 0) {
    ivec2 last = textureSize(ids, 0).yx - 1;
    bool inside = idAt(max(at - ivec2(1, 0), ivec2(0))) == id && idAt(min(at + ivec2(1, 0), last)) == id
      && idAt(max(at - ivec2(0, 1), ivec2(0))) == id && idAt(min(at + ivec2(0, 1), last)) == id;
    if (!inside) rgb = mix(ink.rgb, line, 0.8);
  } else if (edge) rgb = mix(rgb, panel, 0.42);
  color = vec4(rgb, 1.0);
}`;

/** Whether WebGL2 is there, and drawn by a graphics processor: one that the main processor emulates is slower than a canvas. */
export function hasFastWebgl() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (gl === null) return false;
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

/** A painter on a canvas, or null where the browser has no WebGL2. */
export function webglPainter(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false });
  if (gl === null) return null;
  const program = linked(gl);
  gl.useProgram(program);
  const place = (name) => gl.getUniformLocation(program, name);
  const ids = newTexture(gl, 0);
  const inks = newTexture(gl, 1);
  gl.uniform1i(place("ids"), 0);
  gl.uniform1i(place("inks"), 1);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  return {
    kind: "webgl2",
    setColors({ panel, line, free }) {
      for (const [name, color] of Object.entries({ panel, line, free })) gl.uniform3f(place(name), ...color.map((one) => one / 255));
    },
    setInks(bytes) {
      const rows = Math.ceil(bytes.length / 4 / WIDE);
      const padded = new Uint8Array(rows * WIDE * 4);
      padded.set(bytes);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, inks);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, WIDE, rows, 0, gl.RGBA, gl.UNSIGNED_BYTE, padded);
    },
    draw(pixels, width, height) {
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, ids);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32UI, height, width, 0, gl.RED_INTEGER, gl.UNSIGNED_INT, pixels);
      gl.viewport(0, 0, width, height);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    },
    readPixel(x, y) {
      const pixel = new Uint8Array(4);
      gl.readPixels(x, y, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
      return [...pixel];
    },
  };
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return program;
}

function newTexture(gl, unit) {
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  return texture;
}
