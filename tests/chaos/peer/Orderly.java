import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.Instant;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's ordered consumer with its usual settings, posting each message to an HTTP handler with the
 * headers that Keylane sends. SIGTERM shuts it down in good order.
 *
 * <p>Arguments: name server, topic, group, URL, timeout of a call in milliseconds.
 */
public final class Orderly {
    private static final HttpClient CLIENT =
        HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    public static void main(String[] args) throws Exception {
        URI handler = URI.create(args[3]);
        Duration timeout = Duration.ofMillis(Long.parseLong(args[4]));
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args[2]);
        consumer.setNamesrvAddr(args[0]);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setVipChannelEnabled(false);
        consumer.subscribe(args[1], "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (MessageExt message : messages) {
                if (!handled(handler, timeout, message)) {
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        Runtime.getRuntime().addShutdownHook(new Thread(consumer::shutdown));
        Thread.currentThread().join();
    }

    private static boolean handled(URI handler, Duration timeout, MessageExt message) {
        String source = "rocketmq://" + message.getBrokerName() + "/" + message.getTopic() + "/"
            + message.getQueueId();
        HttpRequest request = HttpRequest.newBuilder(handler)
            .timeout(timeout)
            .header("ce-source", source)
            .header("ce-sequence", Long.toString(message.getQueueOffset()))
            .header("ce-partitionkey", message.getProperty("__SHARDINGKEY"))
            .header("ce-deadline", Instant.now().plus(timeout).toString())
            .POST(HttpRequest.BodyPublishers.ofByteArray(message.getBody()))
            .build();
        try {
            int status = CLIENT.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
            return status / 100 == 2;
        } catch (Exception e) {
            return false;
        }
    }
}
