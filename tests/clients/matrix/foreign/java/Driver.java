// Apache Kafka's Java client, driven by lines of JSON; see tests/clients/matrix/drivers/json_lines.py.
// One call, one answer; what fails is answered with Kafka's number of the error and the client's own words.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.*;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.common.utils.Exit;

public class Driver {
    static final ObjectMapper JSON = new ObjectMapper(com.fasterxml.jackson.core.JsonFactory.builder()
            .streamReadConstraints(com.fasterxml.jackson.core.StreamReadConstraints.builder().maxStringLength(1 << 28).build()).build());
    static final Duration LONG = Duration.ofSeconds(60);
    static final Duration SHORT = Duration.ofSeconds(1); // it waits for its long poll, which nobody needs any more
    static final ByteArrayOutputStream printed = new ByteArrayOutputStream(); // by tools, to their standard output
    static Ended ended; // what the first call of its exit said
    static final Map<Integer, Producer<byte[], byte[]>> producers = new HashMap<>();
    static final Map<Integer, JsonNode> places = new HashMap<>();
    static final Map<Integer, List<Future<RecordMetadata>>> sent = new HashMap<>();
    static final Map<Integer, Consumer<byte[], byte[]>> consumers = new HashMap<>();
    static final Map<Integer, ArrayDeque<ConsumerRecord<byte[], byte[]>>> fetched = new HashMap<>();
    static final Map<Integer, Map<TopicPartition, OffsetAndMetadata>> reached = new HashMap<>(); // where members would go on

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        System.setErr(System.out);
        Exit.setExitProcedure((code, message) -> {
            if (ended == null) ended = new Ended(code, printed.toString(StandardCharsets.UTF_8));
            throw ended;
        });
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                perform(JSON.readTree(line), answer);
            } catch (Exception error) {
                Throwable cause = error instanceof ExecutionException && error.getCause() != null ? error.getCause() : error;
                ObjectNode told = answer.removeAll().putObject("error");
                Errors known = cause instanceof ApiException ? Errors.forException(cause) : Errors.UNKNOWN_SERVER_ERROR;
                if (known == Errors.UNKNOWN_SERVER_ERROR) told.putNull("code"); else told.put("code", known.code());
                told.put("text", cause.getClass().getSimpleName() + ": " + cause.getMessage());
            }
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
        System.exit(0);
    }

    /** A tool's way to leave its process. Some catch what they are thrown, and leave a second time: the first counts. */
    static class Ended extends Error {
        final int code;
        final String printed;

        Ended(int code, String printed) {
            this.code = code;
            this.printed = printed;
        }
    }

    static void tool(JsonNode call, ObjectNode answer) throws Exception {
        List<String> arguments = new ArrayList<>();
        call.get("arguments").forEach(each -> arguments.add(each.asText()));
        printed.reset();
        ended = null;
        int code = 0;
        try {
            Class.forName(call.get("tool").asText()).getMethod("main", String[].class)
                    .invoke(null, (Object) arguments.toArray(new String[0]));
        } catch (InvocationTargetException error) {
            error.getCause().printStackTrace();
            code = 1;
        }
        if (ended == null) ended = new Ended(code, printed.toString(StandardCharsets.UTF_8));
        answer.put("code", ended.code).put("printed", ended.printed);
    }

    static void perform(JsonNode call, ObjectNode answer) throws Exception {
        int id = call.path("id").asInt(-1);
        switch (call.get("op").asText()) {
            case "tool" -> tool(call, answer);
            case "version" -> answer.put("version", AppInfoParser.getVersion());
            case "writer" -> {
                places.put(id, call);
                sent.put(id, new ArrayList<>());
                producers.put(id, new KafkaProducer<>(producerSettings(call), new ByteArraySerializer(), new ByteArraySerializer()));
            }
            case "send" -> send(id, call.get("records"));
            case "flush" -> {
                producers.get(id).flush();
                List<Future<RecordMetadata>> futures = sent.put(id, new ArrayList<>());
                ArrayNode offsets = answer.putArray("offsets");
                for (Future<RecordMetadata> future : futures) offsets.add(future.get().offset());
            }
            case "reader" -> open(id, call);
            case "member" -> join(id, call);
            case "read" -> read(id, call, answer.putArray("records"));
            case "seek" -> consumers.get(id).seek(
                    new TopicPartition(call.get("topic").asText(), call.get("partition").asInt()), call.get("offset").asLong());
            case "commit" -> {
                consumers.get(id).commitSync(reached.get(id), LONG);
                reached.get(id).clear();
            }
            case "close" -> {
                if (producers.containsKey(id)) producers.remove(id).close(LONG);
                if (consumers.containsKey(id)) consumers.remove(id).close(CloseOptions.timeout(SHORT));
            }
            case "bounds", "offset_at", "partitions" -> lookUp(call, answer);
            default -> administer(call, answer);
        }
    }

    static Properties settings(JsonNode call) {
        Properties own = new Properties();
        own.put("bootstrap.servers", call.get("bootstrap").asText());
        own.put("client.id", call.get("client_id").asText());
        return own;
    }

    static void put(Properties own, String name, JsonNode value) {
        if (value != null && !value.isNull()) own.put(name, value.asText());
    }

    static Properties producerSettings(JsonNode call) {
        JsonNode given = call.get("settings");
        Properties own = settings(call);
        put(own, "compression.type", given.get("codec"));
        put(own, "enable.idempotence", given.get("idempotent"));
        put(own, "acks", given.get("acks"));
        if (!given.get("acks").isNull() && !given.get("acks").asText().equals("all")) own.put("enable.idempotence", "false");
        put(own, "linger.ms", given.get("linger_ms"));
        put(own, "max.request.size", given.get("record_bytes_max"));
        put(own, "max.block.ms", given.get("give_up_ms"));
        return own;
    }

    static void send(int id, JsonNode records) throws IOException {
        JsonNode place = places.get(id);
        Integer partition = place.get("partition").isNull() ? null : place.get("partition").asInt();
        for (JsonNode record : records) {
            List<Header> headers = new ArrayList<>();
            for (JsonNode header : record.get("headers")) headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
            Long timestamp = record.get("timestamp").isNull() ? null : record.get("timestamp").asLong();
            sent.get(id).add(producers.get(id).send(new ProducerRecord<>(
                    place.get("topic").asText(), partition, timestamp, bytes(record.get("key")), bytes(record.get("value")), headers)));
        }
    }

    static byte[] bytes(JsonNode packed) throws IOException {
        return packed.isNull() ? null : packed.binaryValue();
    }

    static Consumer<byte[], byte[]> consumer(JsonNode call) {
        Properties own = settings(call);
        own.put("enable.auto.commit", "false");
        own.put("allow.auto.create.topics", "false");
        JsonNode given = call.get("settings");
        if (given != null) {
            own.put("auto.offset.reset", given.get("reset").asText());
            own.put("allow.auto.create.topics", given.get("create_on_read").asText());
            own.put("isolation.level", given.get("committed").asBoolean() ? "read_committed" : "read_uncommitted");
            put(own, "max.partition.fetch.bytes", given.get("record_bytes_max"));
            put(own, "fetch.max.wait.ms", given.get("wait_ms"));
        }
        return new KafkaConsumer<>(own, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static void open(int id, JsonNode call) {
        Consumer<byte[], byte[]> consumer = consumer(call);
        List<TopicPartition> partitions = new ArrayList<>();
        for (JsonNode number : call.get("partitions")) partitions.add(new TopicPartition(call.get("topic").asText(), number.asInt()));
        consumer.assign(partitions);
        consumers.put(id, consumer);
        fetched.put(id, new ArrayDeque<>());
        TopicPartition first = partitions.get(0);
        switch (call.get("start").asText()) {
            case "beginning" -> consumer.seekToBeginning(partitions);
            case "end" -> {
                consumer.seekToEnd(partitions);
                consumer.position(first, LONG);
            }
            case "offset" -> consumer.seek(first, call.get("at").asLong());
            default -> consumer.seek(first, consumer.offsetsForTimes(Map.of(first, call.get("at").asLong())).get(first).offset());
        }
    }

    static void join(int id, JsonNode call) {
        JsonNode joining = call.get("joining");
        Properties own = settings(call);
        own.put("group.id", call.get("group").asText());
        own.put("auto.offset.reset", joining.get("reset").asText());
        if (joining.get("follows").asBoolean()) {
            own.put("metadata.max.age.ms", call.get("refresh_ms").asText());
            own.put("allow.auto.create.topics", "false"); // what is deleted would be there again because it is asked for
        }
        own.put("enable.auto.commit", joining.get("by_hand").asBoolean() ? "false" : "true");
        put(own, "group.protocol", joining.get("protocol"));
        put(own, "group.instance.id", joining.get("instance"));
        if (joining.get("protocol").asText().equals("classic")) {
            put(own, "heartbeat.interval.ms", call.get("heartbeat_ms"));
            put(own, "session.timeout.ms", joining.get("session_ms"));
            if (joining.get("cooperative").asBoolean()) own.put("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
        }
        Consumer<byte[], byte[]> consumer = new KafkaConsumer<>(own, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        String topic = call.get("topic").asText();
        if (!joining.get("is_pattern").asBoolean()) consumer.subscribe(List.of(topic));
        else if (joining.get("protocol").asText().equals("consumer")) consumer.subscribe(new SubscriptionPattern(topic)); // the broker's
        else consumer.subscribe(Pattern.compile(topic));
        consumers.put(id, consumer);
        fetched.put(id, new ArrayDeque<>());
        reached.put(id, new HashMap<>());
    }

    static void read(int id, JsonNode call, ArrayNode records) {
        ArrayDeque<ConsumerRecord<byte[], byte[]>> queue = fetched.get(id);
        long deadline = System.nanoTime() + call.get("timeout_ms").asLong() * 1_000_000;
        while (records.size() < call.get("count").asInt()) {
            if (queue.isEmpty()) {
                long leftMs = (deadline - System.nanoTime()) / 1_000_000;
                if (leftMs <= 0) return;
                consumers.get(id).poll(Duration.ofMillis(leftMs)).forEach(queue::add);
                continue;
            }
            ConsumerRecord<byte[], byte[]> record = queue.poll();
            if (reached.containsKey(id)) reached.get(id).put(
                    new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
            ObjectNode told = records.addObject().put("partition", record.partition()).put("offset", record.offset())
                    .put("key", record.key()).put("value", record.value()).put("timestamp", record.timestamp())
                    .put("timestamp_type", record.timestampType().id);
            ArrayNode headers = told.putArray("headers");
            for (Header header : record.headers()) headers.addArray().add(header.key()).add(header.value());
        }
    }

    static void lookUp(JsonNode call, ObjectNode answer) {
        String topic = call.get("topic").asText();
        TopicPartition first = new TopicPartition(topic, 0);
        try (Consumer<byte[], byte[]> consumer = consumer(call)) {
            switch (call.get("op").asText()) {
                case "bounds" -> answer.putArray("offsets").add(consumer.beginningOffsets(List.of(first)).get(first))
                        .add(consumer.endOffsets(List.of(first)).get(first));
                case "offset_at" -> {
                    OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(first, call.get("at").asLong())).get(first);
                    if (found == null) answer.putNull("offset"); else answer.put("offset", found.offset());
                }
                default -> answer.put("count", consumer.partitionsFor(topic).size());
            }
        }
    }

    static void administer(JsonNode call, ObjectNode answer) throws Exception {
        String topic = call.get("topic").asText();
        try (Admin admin = Admin.create(settings(call))) {
            switch (call.get("op").asText()) {
                case "create" -> admin.createTopics(List.of(new NewTopic(topic, call.get("count").asInt(), (short) 1))).all().get();
                case "delete" -> admin.deleteTopics(List.of(topic)).all().get();
                case "topics" -> {
                    ArrayNode names = answer.putArray("topics");
                    admin.listTopics().names().get().forEach(names::add);
                }
                case "add_partitions" -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(call.get("count").asInt()))).all().get();
                case "delete_records" -> admin.deleteRecords(Map.of(
                        new TopicPartition(topic, 0), RecordsToDelete.beforeOffset(call.get("at").asLong()))).all().get();
                case "cluster" -> {
                    DescribeClusterResult told = admin.describeCluster();
                    answer.put("id", told.clusterId().get()).put("controller", told.controller().get().id());
                    ArrayNode brokers = answer.putArray("brokers");
                    for (Node node : told.nodes().get()) brokers.add(node.id());
                }
                case "config" -> {
                    ConfigResource resource = resource(call);
                    ObjectNode values = answer.putObject("values");
                    for (ConfigEntry entry : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries())
                        values.put(entry.name(), entry.value());
                }
                case "alter_config" -> {
                    List<AlterConfigOp> wanted = new ArrayList<>();
                    call.get("values").fields().forEachRemaining(each -> wanted.add(new AlterConfigOp(
                            new ConfigEntry(each.getKey(), each.getValue().isNull() ? null : each.getValue().asText()),
                            each.getValue().isNull() ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET)));
                    admin.incrementalAlterConfigs(Map.of(resource(call), wanted)).all().get();
                }
                default -> administerGroups(admin, topic, call, answer);
            }
        }
    }

    static ConfigResource resource(JsonNode call) {
        return new ConfigResource(ConfigResource.Type.valueOf(call.get("kind").asText().toUpperCase()), call.get("name").asText());
    }

    static void administerGroups(Admin admin, String topic, JsonNode call, ObjectNode answer) throws Exception {
        String group = call.path("group").asText();
        switch (call.get("op").asText()) {
            case "groups" -> {
                ArrayNode names = answer.putArray("groups");
                for (GroupListing each : admin.listGroups().all().get()) names.add(each.groupId());
            }
            case "group" -> {
                ConsumerGroupDescription told = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                answer.put("state", told.groupState().toString()).put("members", told.members().size());
            }
            case "group_offsets" -> {
                ArrayNode offsets = answer.putArray("offsets");
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((where, offset) -> {
                    if (where.topic().equals(topic)) offsets.addArray().add(where.partition()).add(offset.offset());
                });
            }
            case "set_group_offsets" -> {
                Map<TopicPartition, OffsetAndMetadata> wanted = new HashMap<>();
                for (JsonNode each : call.get("offsets"))
                    wanted.put(new TopicPartition(topic, each.get(0).asInt()), new OffsetAndMetadata(each.get(1).asLong()));
                admin.alterConsumerGroupOffsets(group, wanted).all().get();
            }
            case "delete_group_offsets" -> admin.deleteConsumerGroupOffsets(
                    group, Set.of(new TopicPartition(topic, call.get("partition").asInt()))).all().get();
            case "delete_group" -> admin.deleteConsumerGroups(List.of(group)).all().get();
            default -> throw new IllegalArgumentException(call.get("op").asText());
        }
    }
}
