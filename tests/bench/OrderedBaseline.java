import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;

/**
 * RocketMQ's own ordered consumer, as a measure: handles messages of a topic with a fixed time of work
 * each and prints how many a second it handled, from the first one's start to the last one's end.
 *
 * <p>Arguments: name server, topic, group (a new one starts at the first message), messages,
 * milliseconds of work, longest time in seconds. Prints one line of JSON.
 */
public final class OrderedBaseline {
    public static void main(String[] args) throws Exception {
        if (args.length != 6) {
            System.err.println(
                "usage: OrderedBaseline NAME_SERVER TOPIC GROUP MESSAGES WORK_MS LIMIT_SECONDS");
            System.exit(2);
        }
        long wanted = Long.parseLong(args[3]);
        long work = Long.parseLong(args[4]);
        long limit = Long.parseLong(args[5]);
        AtomicLong started = new AtomicLong();
        AtomicLong handled = new AtomicLong();
        AtomicLong first = new AtomicLong();
        AtomicLong last = new AtomicLong();
        CountDownLatch done = new CountDownLatch(1);

        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args[2]);
        consumer.setNamesrvAddr(args[0]);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // One thread for each queue and more: its order, not its threads, is what limits it.
        consumer.setConsumeThreadMin(128);
        consumer.setConsumeThreadMax(128);
        consumer.subscribe(args[1], "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            if (started.getAndIncrement() == 0) {
                first.set(System.nanoTime());
            }
            for (int i = 0; i < messages.size(); i++) {
                try {
                    Thread.sleep(work);
                } catch (InterruptedException interrupted) {
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
            }
            long total = handled.addAndGet(messages.size());
            if (total - messages.size() < wanted && total >= wanted) {
                last.set(System.nanoTime());
                done.countDown();
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        boolean all = done.await(limit, TimeUnit.SECONDS);
        if (!all) {
            System.err.println(
                "handled " + handled.get() + " of " + wanted + " messages in " + limit + " s");
            // Not a normal exit: shutting down would wait for calls that run.
            Runtime.getRuntime().halt(1);
        }
        double seconds = (last.get() - first.get()) / 1e9;
        System.out.printf(
            java.util.Locale.ROOT,
            "{\"messages\":%d,\"seconds\":%.3f,\"perSecond\":%.1f}%n",
            wanted, seconds, wanted / seconds);
        System.out.flush();
        consumer.shutdown();
        System.exit(0);
    }
}
