import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/**
 * What a consumer does with the messages of a topic, as a measure: each has a fixed time of work, from
 * the first one's start to the last one's end, and the order of each key is judged.
 */
final class Measure {
    private final AtomicBoolean started = new AtomicBoolean();
    private final AtomicLong handled = new AtomicLong();
    private final AtomicLong inversions = new AtomicLong();
    private final AtomicLong overlaps = new AtomicLong();
    private final CountDownLatch done = new CountDownLatch(1);
    private final ConcurrentHashMap<String, Lane> lanes = new ConcurrentHashMap<>();
    private final long wanted;
    private final long workNanos;
    /** Microseconds from sending to handling, of the messages that are timed. */
    private final long[] latencies;
    private final AtomicInteger timed = new AtomicInteger();
    private volatile long firstAt;
    private volatile long lastAt;
    private volatile long cpuAtFirst;
    private volatile long cpuAtLast;

    /** One key of one queue. */
    private final class Lane {
        private boolean running;
        private long lastFinished = -1;

        synchronized void begin(long offset) {
            if (running) {
                overlaps.incrementAndGet();
            }
            // Started after a later one was finished.
            if (offset < lastFinished) {
                inversions.incrementAndGet();
            }
            running = true;
        }

        synchronized void end(long offset) {
            running = false;
            lastFinished = Math.max(lastFinished, offset);
        }
    }

    /**
     * Of so many messages, of which some are timed: their bodies begin with the time of their sending, 16
     * digits, microseconds since the Unix epoch; those of the others with zeros.
     */
    Measure(long wanted, int timed, long workMillis) {
        this.wanted = wanted;
        this.latencies = new long[timed];
        this.workNanos = TimeUnit.MILLISECONDS.toNanos(workMillis);
    }

    /** Before messages are handled; the first time "started" is printed. */
    void begin() {
        if (!started.get() && started.compareAndSet(false, true)) {
            System.out.println("started");
            System.out.flush();
            if (latencies.length == 0) {
                count();
            }
        }
    }

    /** Handles a message of a lane: of a queue and a key of it. */
    void handle(String key, long offset, byte[] body) {
        if (latencies.length > 0) {
            time(body);
        }
        Lane lane = lanes.computeIfAbsent(key, ignored -> new Lane());
        lane.begin(offset);
        long until = System.nanoTime() + workNanos;
        for (long left = workNanos; left > 0; left = until - System.nanoTime()) {
            LockSupport.parkNanos(left);
        }
        lane.end(offset);
    }

    /** After that many were handled. */
    void end(int count) {
        long total = handled.addAndGet(count);
        if (total - count < wanted && total >= wanted) {
            lastAt = System.nanoTime();
            cpuAtLast = cpu();
            done.countDown();
        }
    }

    /** Waits for the last message, prints what was measured as a line of JSON, and ends the process. */
    void conclude(long limitSeconds) throws Exception {
        if (!done.await(limitSeconds, TimeUnit.SECONDS)) {
            System.err.println(
                "handled " + handled.get() + " of " + wanted + " messages in " + limitSeconds + " s");
            // Not a normal exit: shutting down would wait for calls that run.
            Runtime.getRuntime().halt(1);
        }
        double seconds = (lastAt - firstAt) / 1e9;
        System.out.printf(
            Locale.ROOT,
            "{\"messages\":%d,\"seconds\":%.3f,\"cpuSeconds\":%.3f,\"rssMib\":%.1f,\"inversions\":%d,"
                + "\"overlaps\":%d,\"p50Ms\":%s,\"p99Ms\":%s}%n",
            latencies.length > 0 ? latencies.length : wanted, seconds, (cpuAtLast - cpuAtFirst) / 1e9, peakRss(),
            inversions.get(), overlaps.get(), percentile(0.5), percentile(0.99));
        System.out.flush();
        // A normal end takes as long as the client's own shutdown does; nothing here waits for it.
        Runtime.getRuntime().halt(0);
    }

    /** What counts begins. */
    private void count() {
        cpuAtFirst = cpu();
        firstAt = System.nanoTime();
    }

    private void time(byte[] body) {
        long sent = Long.parseLong(new String(body, 0, 16, StandardCharsets.US_ASCII));
        if (sent > 0) {
            long took = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now()) - sent;
            int index = timed.getAndIncrement();
            if (index == 0) {
                count();
            }
            if (index < latencies.length) {
                latencies[index] = Math.max(took, 0);
            }
        }
    }

    /** Milliseconds that this share of the timed messages took at most; null if none is timed. */
    private String percentile(double share) {
        int count = Math.min(timed.get(), latencies.length);
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
