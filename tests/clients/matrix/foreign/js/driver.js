// kafkajs, driven by lines of JSON; see tests/clients/matrix/drivers/json_lines.py.
"use strict";

const readline = require("node:readline");
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel } = require("kafkajs");

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");

const writers = new Map();
const members = new Map();
const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };
const CONFIG_TYPES = { topic: ConfigResourceTypes.TOPIC, broker: ConfigResourceTypes.BROKER };
const ACKS = { 0: 0, 1: 1, all: -1 };
const bytes = (packed) => (packed === null ? null : Buffer.from(packed, "base64"));

function client(call, retry) {
  return new Kafka({ clientId: call.client_id, brokers: [call.bootstrap], logLevel: logLevel.NOTHING, retry });
}

async function open(call) {
  const given = call.settings;
  const producer = client(call, given.give_up_ms === null ? undefined : { retries: 1 }).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: given.idempotent ?? undefined,
    maxInFlightRequests: given.idempotent ? 1 : undefined, // as its documentation asks for
  });
  await producer.connect();
  writers.set(call.id, { producer, call, sent: [] });
}

function send(call) {
  const { producer, call: opened, sent } = writers.get(call.id);
  const messages = call.records.map((record) => ({
    key: bytes(record.key),
    value: bytes(record.value),
    headers: Object.fromEntries(record.headers.map(([name, value]) => [name, bytes(value)])),
    ...(opened.partition === null ? {} : { partition: opened.partition }),
    ...(record.timestamp === null ? {} : { timestamp: String(record.timestamp) }),
  }));
  const { acks, codec } = opened.settings;
  // Sends that run side by side overtake each other when they are tried again, idempotent or not: who wants order waits.
  const before = sent.at(-1)?.told ?? Promise.resolve();
  const told = before.then(() => producer.send({
    topic: opened.topic, messages, acks: acks === null ? undefined : ACKS[acks], compression: codec === null ? undefined : CODECS[codec],
  }));
  told.catch(() => {}); // looked at by flush
  sent.push({ told, count: messages.length });
}

async function flush(call) {
  const writer = writers.get(call.id);
  const offsets = [];
  for (const { told, count } of writer.sent.splice(0)) {
    const answered = await told;
    const base = answered.length ? Number(answered[0].baseOffset) : -1;
    for (let number = 0; number < count; number++) offsets.push(base < 0 ? -1 : base + number);
  }
  return { offsets };
}

const packed = (data) => (data === null || data === undefined ? null : data.toString("base64"));

async function join(call) {
  const { session_ms: sessionTimeout, by_hand: byHand, follows, is_pattern: isPattern } = call.joining;
  const consumer = client(call).consumer({
    ...(follows ? { metadataMaxAge: call.refresh_ms } : {}),
    groupId: call.group, heartbeatInterval: call.heartbeat_ms, ...(sessionTimeout === null ? {} : { sessionTimeout }),
    maxWaitTimeInMs: call.heartbeat_ms, // it sends heartbeats between fetches only
  });
  const member = { consumer, byHand, records: [], reached: new Map(), wake: () => {} };
  await consumer.connect();
  await consumer.subscribe({ topics: [isPattern ? new RegExp(call.topic) : call.topic], fromBeginning: true });
  await consumer.run({
    autoCommit: !byHand,
    eachMessage: async ({ topic, partition, message }) => {
      const headers = Object.entries(message.headers ?? {}).map(([name, value]) => [name, packed(value)]);
      member.records.push({
        topic, partition, offset: Number(message.offset), key: packed(message.key), value: packed(message.value), headers,
        timestamp: Number(message.timestamp), timestamp_type: null,
      });
      member.wake();
    },
  });
  members.set(call.id, member);
}

async function read(call) {
  const member = members.get(call.id);
  const deadline = Date.now() + call.timeout_ms;
  while (member.records.length < call.count && Date.now() < deadline) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, deadline - Date.now());
      member.wake = () => { clearTimeout(timer); resolve(); };
    });
  }
  const records = member.records.splice(0, call.count);
  for (const { topic, partition, offset } of records) member.reached.set(partition, { topic, partition, offset: String(offset + 1) });
  return { records };
}

async function commit(call) {
  const { consumer, reached } = members.get(call.id);
  await consumer.commitOffsets([...reached.values()]);
  reached.clear();
}

async function close(call) {
  const { producer, consumer, reached, byHand } = writers.get(call.id) ?? members.get(call.id);
  // A commit that it does by itself and that fails is not tried again; one that it is asked for is.
  if (consumer && !byHand && reached.size > 0) await consumer.commitOffsets([...reached.values()]);
  await (producer ?? consumer).disconnect();
}

async function administer(call, act) {
  // It takes a topic that is not there for one that may come, and asks for seconds.
  const admin = client(call, { retries: 1 }).admin();
  await admin.connect();
  try {
    return await act(admin);
  } finally {
    await admin.disconnect();
  }
}

const perform = {
  version: async () => ({ version: require("kafkajs/package.json").version }),
  writer: async (call) => void (await open(call)),
  send: async (call) => void send(call),
  flush,
  member: async (call) => void (await join(call)),
  read,
  commit,
  close: async (call) => void (await close(call)),
  bounds: (call) => administer(call, async (admin) => {
    const [first] = (await admin.fetchTopicOffsets(call.topic)).filter((one) => one.partition === 0);
    return { offsets: [Number(first.low), Number(first.high)] };
  }),
  offset_at: (call) => administer(call, async (admin) => {
    const found = (await admin.fetchTopicOffsetsByTimestamp(call.topic, call.at)).filter((one) => one.partition === 0);
    const end = (await admin.fetchTopicOffsets(call.topic)).filter((one) => one.partition === 0);
    // It turns "none" into the end of the log.
    return { offset: found[0].offset === end[0].offset ? null : Number(found[0].offset) };
  }),
  partitions: (call) => administer(call, async (admin) => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [call.topic] });
    return { count: topics[0].partitions.length };
  }),
  create: (call) => administer(call, async (admin) => {
    const made = await admin.createTopics({ topics: [{ topic: call.topic, numPartitions: call.count }], waitForLeaders: true });
    if (!made) throw Object.assign(new Error("createTopics: false, which is its word for a topic that exists"), { code: 36 });
    return {};
  }),
  delete: (call) => administer(call, async (admin) => void (await admin.deleteTopics({ topics: [call.topic] }))),
  topics: (call) => administer(call, async (admin) => ({ topics: await admin.listTopics() })),
  add_partitions: (call) => administer(call, async (admin) =>
    void (await admin.createPartitions({ topicPartitions: [{ topic: call.topic, count: call.count }] }))),
  delete_records: (call) => administer(call, async (admin) => {
    await admin.fetchTopicOffsets(call.topic); // it finds the leaders of topics only that it was asked about before
    await admin.deleteTopicRecords({ topic: call.topic, partitions: [{ partition: 0, offset: String(call.at) }] });
  }),
  cluster: (call) => administer(call, async (admin) => {
    const { clusterId, controller, brokers } = await admin.describeCluster();
    return { id: clusterId, controller, brokers: brokers.map(({ nodeId }) => nodeId) };
  }),
  config: (call) => administer(call, async (admin) => {
    const resources = [{ type: CONFIG_TYPES[call.kind], name: call.name }];
    const { resources: [{ configEntries }] } = await admin.describeConfigs({ resources, includeSynonyms: false });
    return { values: Object.fromEntries(configEntries.map(({ configName, configValue }) => [configName, configValue])) };
  }),
  // The old request, which replaces all that there is: what is not named goes back to the default.
  alter_config: (call) => administer(call, async (admin) => {
    const configEntries = Object.entries(call.values).filter(([, value]) => value !== null).map(([name, value]) => ({ name, value }));
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: CONFIG_TYPES[call.kind], name: call.name, configEntries }] });
  }),
  groups: (call) => administer(call, async (admin) => ({ groups: (await admin.listGroups()).groups.map(({ groupId }) => groupId) })),
  group: (call) => administer(call, async (admin) => {
    const { groups: [{ state, members }] } = await admin.describeGroups([call.group]);
    return { state, members: members.length };
  }),
  group_offsets: (call) => administer(call, async (admin) => {
    const found = (await admin.fetchOffsets({ groupId: call.group })).filter(({ topic }) => topic === call.topic);
    return { offsets: found.flatMap(({ partitions }) => partitions.map(({ partition, offset }) => [partition, Number(offset)])) };
  }),
  set_group_offsets: (call) => administer(call, async (admin) => {
    const partitions = call.offsets.map(([partition, offset]) => ({ partition, offset: String(offset) }));
    await admin.setOffsets({ groupId: call.group, topic: call.topic, partitions });
  }),
  delete_group: (call) => administer(call, async (admin) => void (await admin.deleteGroups([call.group]))),
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const call = JSON.parse(line);
    let answer;
    try {
      answer = (await perform[call.op](call)) ?? {};
    } catch (error) {
      const cause = error.cause ?? error.errors?.[0] ?? error.groups?.[0]?.error ?? error;
      answer = { error: { code: typeof cause.code === "number" ? cause.code : null, text: `${cause.name}: ${cause.message}` } };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
}

main();
