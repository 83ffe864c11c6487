// A client made of Node's `ws` where that is installed, and of Node's own WebSocket otherwise.
// Usage: node client.mjs URL; prints one line of JSON with what happened.
import { createRequire } from "node:module";

const url = process.argv[2];
let Library = globalThis.WebSocket;
let name = "node";
try {
  Library = createRequire(import.meta.url)("ws");
  name = "ws";
} catch {
  // Not installed.
}
if (url === undefined) {
  console.log(JSON.stringify({ library: Library === undefined ? null : name }));
  process.exit();
}

const socket = new Library(url, ["chat.v2", "chat.v1"]);
socket.binaryType = "arraybuffer";
const received = [];
const binary = new Uint8Array(300_000).map((_, index) => index % 251);

socket.addEventListener("open", () => {
  socket.send("hello from node");
  socket.send("");
  socket.send("ü".repeat(40_000));
  socket.send(binary);
});
socket.addEventListener("message", ({ data }) => {
  received.push(data);
  if (received.length === 4) {
    socket.close(4321, "node is done");
  }
});
socket.addEventListener("error", (event) => {
  console.error(event.message ?? "error");
});
socket.addEventListener("close", ({ code, reason, wasClean }) => {
  const [text, empty, long, bytes] = received;
  const echoed =
    text === "hello from node" &&
    empty === "" &&
    long === "ü".repeat(40_000) &&
    bytes !== undefined &&
    Buffer.compare(Buffer.from(bytes), Buffer.from(binary)) === 0;
  const { protocol, extensions } = socket;
  console.log(JSON.stringify({ library: name, echoed, code, reason, wasClean, protocol, extensions }));
});
