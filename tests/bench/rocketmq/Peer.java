import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's own consumers, as a measure: handles the messages of a topic with a fixed time of work
 * each, from the first one's start to the last one's end, and judges the order of each key.
 *
 * <p>Arguments: orderly or concurrent, name server, topic, group (a new one starts at the first
 * message), messages, how many of them are timed (their bodies begin with the time of their sending, 16
 * digits, microseconds since the Unix epoch; those of the others with zeros), milliseconds of work,
 * threads, longest time in seconds. Prints "started" at the first message, and one line of JSON.
 */
public final class Peer {
    private static final AtomicLong STARTED = new AtomicLong();
    private static final AtomicLong HANDLED = new AtomicLong();
    private static final AtomicLong INVERSIONS = new AtomicLong();
    private static final AtomicLong OVERLAPS = new AtomicLong();
    private static final CountDownLatch DONE = new CountDownLatch(1);
    private static volatile long firstAt;
    private static volatile long lastAt;
    private static volatile long cpuAtFirst;
    private static volatile long cpuAtLast;
    private static long wanted;
    private static long workNanos;
    /** Microseconds from sending to handling, of the messages that are timed. */
    private static long[] latencies;
    private static final AtomicInteger TIMED = new AtomicInteger();

    /** One key of one queue. */
    private static final class Lane {
        private boolean running;
        private long lastFinished = -1;

        synchronized void begin(long offset) {
            if (running) {
                OVERLAPS.incrementAndGet();
            }
            // Started after a later one was finished.
            if (offset < lastFinished) {
                INVERSIONS.incrementAndGet();
            }
            running = true;
        }

        synchronized void end(long offset) {
            running = false;
            lastFinished = Math.max(lastFinished, offset);
        }
    }

    private static final ConcurrentHashMap<String, Lane> LANES = new ConcurrentHashMap<>();

    public static void main(String[] args) throws Exception {
        if (args.length != 9) {
            System.err.println("usage: Peer orderly|concurrent NAME_SERVER TOPIC GROUP MESSAGES TIMED WORK_MS"
                + " THREADS LIMIT_SECONDS");
            System.exit(2);
        }
        boolean orderly = args[0].equals("orderly");
        wanted = Long.parseLong(args[4]);
        latencies = new long[Integer.parseInt(args[5])];
        workNanos = TimeUnit.MILLISECONDS.toNanos(Long.parseLong(args[6]));
        int threads = Integer.parseInt(args[7]);
        long limit = Long.parseLong(args[8]);

        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args[3]);
        consumer.setNamesrvAddr(args[1]);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(threads);
        consumer.setConsumeThreadMax(threads);
        consumer.setPullBatchSize(1024);
        consumer.subscribe(args[2], "*");
        if (orderly) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                handle(messages);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                handle(messages);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        if (!DONE.await(limit, TimeUnit.SECONDS)) {
            System.err.println(
                "handled " + HANDLED.get() + " of " + wanted + " messages in " + limit + " s");
            // Not a normal exit: shutting down would wait for calls that run.
            Runtime.getRuntime().halt(1);
        }
        double seconds = (lastAt - firstAt) / 1e9;
        System.out.printf(
            Locale.ROOT,
            "{\"messages\":%d,\"seconds\":%.3f,\"cpuSeconds\":%.3f,\"rssMib\":%.1f,\"inversions\":%d,"
                + "\"overlaps\":%d,\"p50Ms\":%s,\"p99Ms\":%s}%n",
            latencies.length > 0 ? latencies.length : wanted, seconds, (cpuAtLast - cpuAtFirst) / 1e9, peakRss(),
            INVERSIONS.get(), OVERLAPS.get(), percentile(0.5), percentile(0.99));
        System.out.flush();
        // A normal end takes as long as the client's own shutdown does; nothing here waits for it.
        Runtime.getRuntime().halt(0);
    }

    private static void handle(List<MessageExt> messages) {
        if (STARTED.getAndIncrement() == 0) {
            System.out.println("started");
            System.out.flush();
            if (latencies.length == 0) {
                begin();
            }
        }
        for (MessageExt message : messages) {
            if (latencies.length > 0) {
                time(message.getBody());
            }
            String key = message.getQueueId() + "/" + message.getProperty("__SHARDINGKEY");
            Lane lane = LANES.computeIfAbsent(key, ignored -> new Lane());
            lane.begin(message.getQueueOffset());
            long until = System.nanoTime() + workNanos;
            for (long left = workNanos; left > 0; left = until - System.nanoTime()) {
                LockSupport.parkNanos(left);
            }
            lane.end(message.getQueueOffset());
        }
        long total = HANDLED.addAndGet(messages.size());
        if (total - messages.size() < wanted && total >= wanted) {
            lastAt = System.nanoTime();
            cpuAtLast = cpu();
            DONE.countDown();
        }
    }

    private static void begin() {
        cpuAtFirst = cpu();
        firstAt = System.nanoTime();
    }

    private static void time(byte[] body) {
        long sent = Long.parseLong(new String(body, 0, 16, StandardCharsets.US_ASCII));
        if (sent > 0) {
            long took = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now()) - sent;
            int index = TIMED.getAndIncrement();
            if (index == 0) {
                begin();
            }
            if (index < latencies.length) {
                latencies[index] = Math.max(took, 0);
            }
        }
    }

    /** Milliseconds that this share of the timed messages took at most; null if none is timed. */
    private static String percentile(double share) {
        int count = Math.min(TIMED.get(), latencies.length);
        if (count == 0) {
            return "null";
        }
        long[] sorted = Arrays.copyOf(latencies, count);
        Arrays.sort(sorted);
        return String.format(Locale.ROOT, "%.3f", sorted[(int) Math.round((count - 1) * share)] / 1e3);
    }

    private static long cpu() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    private static double peakRss() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", "")) / 1024.0;
            }
        }
        return 0;
    }
}
