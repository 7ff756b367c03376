import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's ordered consumer, posting each message to an HTTP handler with the headers that Keylane sends.
 *
 * <p>All settings are the client's own but two, so that nothing is held against it that is not its doing:
 * SIGTERM lets calls that run finish (the client's usual 0 s would cut them off), and a call whose answer is
 * lost counts as running until the handler says that it is idle or its bound is over, as work within this
 * process would.
 *
 * <p>Arguments: name server, topic, group, handler's address; in milliseconds the timeout that a call is told,
 * how long it may run at most, and how long calls may take to finish after SIGTERM.
 */
public final class Orderly {
    private static final Duration ASK_AGAIN = Duration.ofMillis(200);
    private static final Duration START_AGAIN = Duration.ofSeconds(1);

    public static void main(String[] args) throws Exception {
        AtomicReference<DefaultMQPushConsumer> started = new AtomicReference<>();
        AtomicBoolean ends = new AtomicBoolean();
        // First of all: on a busy machine all below takes so long that the end is asked for meanwhile.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            ends.set(true);
            DefaultMQPushConsumer consumer = started.get();
            if (consumer != null) {
                // Where it is still starting, this waits for that.
                consumer.shutdown();
            }
            // In good order: not with the signal's code.
            Runtime.getRuntime().halt(0);
        }));
        Handler handler = new Handler(args[3], millis(args[4]), millis(args[5]));
        while (!ends.get()) {
            DefaultMQPushConsumer consumer = consumer(args, handler);
            started.set(consumer);
            try {
                consumer.start();
                break;
            } catch (Throwable problem) {
                // The first question to the name server has one chance. In a pod the process would be started again.
                problem.printStackTrace();
                consumer.shutdown();
                Thread.sleep(START_AGAIN.toMillis());
            }
        }
        Thread.currentThread().join();
    }

    private static DefaultMQPushConsumer consumer(String[] args, Handler handler) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args[2]);
        consumer.setNamesrvAddr(args[0]);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setVipChannelEnabled(false);
        consumer.setAwaitTerminationMillisWhenShutdown(millis(args[6]).toMillis());
        consumer.subscribe(args[1], "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (MessageExt message : messages) {
                if (!handler.handles(message)) {
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        return consumer;
    }

    private static Duration millis(String number) {
        return Duration.ofMillis(Long.parseLong(number));
    }

    /** Where messages are handled. */
    private static final class Handler {
        private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        private final URI events;
        private final URI idle;
        private final Duration told;
        private final Duration bound;

        Handler(String address, Duration told, Duration bound) {
            this.events = URI.create(address + "/events");
            this.idle = URI.create(address + "/idle");
            this.told = told;
            this.bound = bound;
        }

        /** Whether the message is handled; nothing of the call runs any more. */
        boolean handles(MessageExt message) {
            long began = System.nanoTime();
            try {
                HttpRequest request = HttpRequest.newBuilder(events)
                    .timeout(bound)
                    .header("ce-source", "rocketmq://" + message.getBrokerName() + "/" + message.getTopic() + "/"
                        + message.getQueueId())
                    .header("ce-sequence", Long.toString(message.getQueueOffset()))
                    .header("ce-partitionkey", message.getProperty("__SHARDINGKEY"))
                    .header("ce-deadline", Instant.now().plus(told).toString())
                    .POST(HttpRequest.BodyPublishers.ofByteArray(message.getBody()))
                    .build();
                return status(request) / 100 == 2;
            } catch (ConnectException e) {
                // Nothing was sent.
                return false;
            } catch (Exception e) {
                untilOver(began);
                return false;
            }
        }

        private int status(HttpRequest request) throws Exception {
            return client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
        }

        private void untilOver(long began) {
            try {
                // Twice: the request may lie in a socket that the handler has not looked at yet.
                int idle = 0;
                while (System.nanoTime() - began < bound.toNanos() && idle < 2) {
                    idle = isIdle() ? idle + 1 : 0;
                    Thread.sleep(ASK_AGAIN.toMillis());
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }

        private boolean isIdle() throws InterruptedException {
            try {
                return status(HttpRequest.newBuilder(idle).timeout(ASK_AGAIN).GET().build()) == 200;
            } catch (InterruptedException e) {
                throw e;
            } catch (Exception e) {
                return false;
            }
        }
    }
}
