// Follows an rtpose pose stream and prints each pose as one line of JSON.
// Written from the protocol in rtpose/messages.py alone.
"use strict";

const { readFileSync } = require("node:fs");
const { parseArgs } = require("node:util");
const { decode } = require("@msgpack/msgpack");
const zmq = require("zeromq");

const SCHEMA_VERSION = 1;

const { values: options } = parseArgs({
  options: {
    endpoint: { type: "string", default: "tcp://127.0.0.1:5560" },
    camera: { type: "string", default: "" }, // all cameras
    "server-key": { type: "string" }, // file with the rig's public key, if the rig encrypts
    count: { type: "string", default: "10" },
    "timeout-s": { type: "string", default: "5" },
    "json-topic": { type: "boolean", default: false },
  },
});

// Stamps are 64-bit nanoseconds. Beyond 2^53, which is 104 days of uptime, a Number rounds them, so
// they are BigInt here; JSON.parse has Numbers only, and is off by some nanoseconds then.
function parse(payload) {
  return options["json-topic"]
    ? JSON.parse(payload.toString("utf8"))
    : decode(payload, { useBigInt64: true });
}

// [individual][keypoint] -> {x, y, confidence}, from either encoding.
function coordinates(pose) {
  const [individuals, keypoints] = pose.shape.map(Number);
  if (Array.isArray(pose.keypoints)) {
    return pose.keypoints.map((one) => one.map(([x, y, confidence]) => ({ x, y, confidence })));
  }
  const bytes = new DataView(pose.keypoints.buffer, pose.keypoints.byteOffset);
  const number = (index) => {
    const value = bytes.getFloat32(4 * index, true);
    return Number.isFinite(value) ? value : null;
  };
  return Array.from({ length: individuals }, (_, i) =>
    Array.from({ length: keypoints }, (_, k) => {
      const at = 3 * (i * keypoints + k);
      return { x: number(at), y: number(at + 1), confidence: number(at + 2) };
    }),
  );
}

function describe(pose, names, lost) {
  const start = pose.exposure_ns ?? pose.arrival_ns;
  const individuals = coordinates(pose).map((points, i) =>
    Object.fromEntries(
      points.map((point, k) => {
        const flag = Array.isArray(pose.valid) ? pose.valid[i][k] : pose.valid[i * names.length + k];
        return [names[k], { ...point, valid: flag !== 0 }];
      }),
    ),
  );
  return {
    camera: pose.camera,
    frame_id: Number(pose.frame_id),
    seq: Number(pose.seq),
    dropped: Number(pose.dropped),
    lost,
    latency_us: Number(BigInt(pose.publish_ns) - BigInt(start)) / 1000,
    individuals,
  };
}

// What a socket needs to talk to a rig that encrypts: its public key, and a pair of our own.
function encryption(file) {
  const key = readFileSync(file, "utf8").match(/public-key = "(.{40})"/)?.[1];
  if (!key) throw new Error(`${file} holds no ZeroMQ public key`);
  const { publicKey, secretKey } = zmq.curveKeyPair();
  return { curveServerKey: key, curvePublicKey: publicKey, curveSecretKey: secretKey };
}

async function main() {
  const socket = new zmq.Subscriber({
    receiveTimeout: 1000 * Number(options["timeout-s"]),
    ...(options["server-key"] && encryption(options["server-key"])),
  });
  const prefix = options["json-topic"] ? "json." : "";
  socket.subscribe(`${prefix}pose.${options.camera}`, `${prefix}status.inference`);
  socket.connect(options.endpoint);

  const names = new Map(); // run -> names: another run may have another model
  const lastSeq = new Map();
  let left = Number(options.count);
  let malformed = 0;
  while (left > 0) {
    const parts = await socket.receive();
    let message;
    try {
      message = parse(parts[1]);
    } catch {
      malformed += 1;
      continue;
    }
    if (message?.v !== SCHEMA_VERSION) {
      malformed += 1;
    } else if (message.type === "status" && message.info.skeleton) {
      names.set(message.run, message.info.skeleton.names);
    } else if (message.type === "pose" && names.has(message.run)) {
      if (options.camera && message.camera !== options.camera) continue; // prefix of another name
      const key = `${message.run} ${message.camera}`;
      const seq = Number(message.seq);
      const lost = lastSeq.has(key) ? seq - lastSeq.get(key) - 1 : 0;
      lastSeq.set(key, seq);
      console.log(JSON.stringify(describe(message, names.get(message.run), lost)));
      left -= 1;
    }
  }
  socket.close();
  if (malformed) console.error(`${malformed} messages were not of schema version ${SCHEMA_VERSION}`);
}

main().catch((error) => {
  const silent = error.code === "EAGAIN";
  const question = "is the rig running, and is this its pose_port, and its key if it has one?";
  console.error(silent ? `nothing came from ${options.endpoint}: ${question}` : error.message);
  process.exit(1);
});
