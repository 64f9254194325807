import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Collector;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.StaleMemberEpochException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A member of a group in Java: it does and tells what member.py does, in the same words.
 *
 * <pre>java -cp ... Member topic=... bootstrap.servers=... group.id=... NAME=VALUE ...</pre>
 *
 * Owns: one consumer. Kafka's own VerifiableConsumer does not commit what it gives up, and does not tell partitions that it
 * lost from those that it gave up, so that its word cannot be judged as strictly.
 */
final class Member implements ConsumerRebalanceListener {
    private static final Duration POLL = Duration.ofMillis(100);
    private static final long COMMIT_EVERY_MS = 300;
    private static final long PATIENCE_MS = 60_000;
    private static final long RETRY_NANOS = 20_000_000;
    // What a KIP-848 member is told, with an exception that stands for much else.
    private static final String PUT_OUT = "unknown member ID";
    // It closes, and asks no more who coordinates: only an answer that is on its way can tell it (CoordinatorRequestManager.poll).
    private static final String NOBODY_ASKED = "Coordinator unknown";
    private static final long ON_ITS_WAY_MS = 1_000;

    private final String topic;
    private final Properties settings;
    private KafkaConsumer<byte[], byte[]> consumer;
    /** Offset after what was read of each partition that it has; and what was acknowledged of them. */
    private final Map<Integer, Long> positions = new HashMap<>();
    private final Map<Integer, Long> committed = new HashMap<>();
    private volatile boolean mustLeave;

    private Member(String topic, Properties settings) {
        this.topic = topic;
        this.settings = settings;
    }

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("fetch.max.wait.ms", "100");
        settings.put("max.poll.records", "200");
        for (String argument : arguments) {
            String[] setting = argument.split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        new Member((String) settings.remove("topic"), settings).run();
    }

    private void run() {
        Thread listener = new Thread(this::waitForTheEnd);
        listener.setDaemon(true);
        listener.start();
        begin();
        long next = 0;
        while (!mustLeave) {
            took(poll());
            if (System.currentTimeMillis() >= next) {
                commit(positions.keySet(), false);
                next = System.currentTimeMillis() + COMMIT_EVERY_MS;
            }
        }
        consumer.close();
        tell("shutdown_complete", "");
    }

    private void begin() {
        consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic), this);
    }

    /**
     * A KIP-848 member that is put out while it asks what is committed has that told to its user, behind onPartitionsLost, and
     * joins again by itself (CommitRequestManager). One whose group has become a classic one since is told that there is no such
     * group, as by Kafka, and takes that for the end (ConsumerHeartbeatRequestManager): somebody starts it again.
     */
    private ConsumerRecords<byte[], byte[]> poll() {
        try {
            return consumer.poll(POLL);
        } catch (UnknownMemberIdException | StaleMemberEpochException putOut) {
            return ConsumerRecords.empty();
        } catch (GroupIdNotFoundException classic) {
            consumer.close();
            begin();
            return ConsumerRecords.empty();
        }
    }

    private void waitForTheEnd() {
        try {
            System.in.readAllBytes();
        } catch (IOException closed) {
            // as good as its end
        }
        mustLeave = true;
    }

    private void took(Iterable<ConsumerRecord<byte[], byte[]>> records) {
        List<long[]> runs = new ArrayList<>();
        long[] run = null;
        for (ConsumerRecord<byte[], byte[]> record : records) {
            // One run for what has no gap, so that a gap is seen.
            if (run == null || run[0] != record.partition() || run[2] + 1 != record.offset()) {
                run = new long[] {record.partition(), record.offset(), record.offset()};
                runs.add(run);
            }
            run[2] = record.offset();
            positions.put(record.partition(), record.offset() + 1);
        }
        if (!runs.isEmpty()) {
            tell("records_consumed", "\"partitions\": " + runs.stream().map(each -> where((int) each[0],
                    ", \"minOffset\": " + each[1] + ", \"maxOffset\": " + each[2])).collect(list()));
        }
    }

    /**
     * isLast: they are given up when it returns, so it is tried until it is known what became of it; also what is committed is
     * committed again, so that who was put out meanwhile is told.
     * Returns whether this is a member still, as far as it knows: who finds no coordinator while it closes sends no heartbeats
     * either, cannot leave, and is put out when its session ends.
     */
    private boolean commit(Collection<Integer> partitions, boolean isLast) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (int partition : partitions) {
            Long position = positions.get(partition);
            if (position != null && (isLast || !position.equals(committed.get(partition)))) {
                offsets.put(new TopicPartition(topic, partition), new OffsetAndMetadata(position));
            }
        }
        String told = "\"offsets\": " + offsets.entrySet().stream().map(each -> where(
                each.getKey().partition(), ", \"offset\": " + each.getValue().offset())).collect(list());
        long begun = System.currentTimeMillis();
        while (!offsets.isEmpty()) {
            tell("offsets_wanted", told);
            try {
                consumer.commitSync(offsets);
                tell("offsets_committed", told + ", \"success\": true");
                offsets.forEach((place, offset) -> committed.put(place.partition(), offset.offset()));
                return true;
            } catch (RetriableException | CommitFailedException | RebalanceInProgressException refused) {
                boolean isAlone = refused instanceof CommitFailedException && refused.getMessage().contains(NOBODY_ASKED);
                boolean isFinal = refused instanceof CommitFailedException && !isAlone;
                long waited = System.currentTimeMillis() - begun;
                if (isFinal || !isLast || waited > (isAlone ? ON_ITS_WAY_MS : PATIENCE_MS)) {
                    tell("offsets_committed", told + ", \"success\": false, \"error\": \"" + refused.getClass().getSimpleName() + "\"");
                    return !isAlone && !(isFinal && refused.getMessage().contains(PUT_OUT));
                }
                LockSupport.parkNanos(RETRY_NANOS);
            }
        }
        return true;
    }

    // -- told by the consumer, while it polls or closes

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> places) {
        tell("partitions_assigned", partitions(places) + ", \"generation\": " + consumer.groupMetadata().generationId());
    }

    /** Who is put out while it closes is called here, not below (AsyncKafkaConsumer.runRebalanceCallbacksOnClose). */
    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> places) {
        boolean isMember = commit(places.stream().map(TopicPartition::partition).toList(), true);
        forget(isMember ? "partitions_revoked" : "partitions_lost", places);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> places) {
        forget("partitions_lost", places);
    }

    private void forget(String how, Collection<TopicPartition> places) {
        for (TopicPartition place : places) {
            positions.remove(place.partition());
            committed.remove(place.partition());
        }
        tell(how, partitions(places));
    }

    // -- lines

    private String partitions(Collection<TopicPartition> places) {
        return "\"partitions\": " + places.stream().map(place -> where(place.partition(), "")).collect(list());
    }

    private String where(int partition, String more) {
        return "{\"topic\": \"" + topic + "\", \"partition\": " + partition + more + "}";
    }

    private static Collector<CharSequence, ?, String> list() {
        return Collectors.joining(", ", "[", "]");
    }

    private static void tell(String name, String more) {
        Instant now = Instant.now(); // with microseconds, as the members of other clients tell it
        System.out.println("{\"timestamp\": " + (now.getEpochSecond() * 1e3 + now.getNano() / 1e6)
                + ", \"name\": \"" + name + "\"" + (more.isEmpty() ? "" : ", " + more) + "}");
        System.out.flush();
    }
}
