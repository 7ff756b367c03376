import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's own consumers, as a measure.
 *
 * <p>Arguments: orderly or concurrent, name server, topic, group (a new one starts at the first
 * message), messages, how many of them are timed, milliseconds of work, threads, longest time in
 * seconds. Prints "started" at the first message, and one line of JSON.
 */
public final class RocketMq {
    public static void main(String[] args) throws Exception {
        if (args.length != 9) {
            System.err.println("usage: RocketMq orderly|concurrent NAME_SERVER TOPIC GROUP MESSAGES TIMED WORK_MS"
                + " THREADS LIMIT_SECONDS");
            System.exit(2);
        }
        boolean orderly = args[0].equals("orderly");
        Measure measure =
            new Measure(Long.parseLong(args[4]), Integer.parseInt(args[5]), Long.parseLong(args[6]));
        int threads = Integer.parseInt(args[7]);

        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(args[3]);
        consumer.setNamesrvAddr(args[1]);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(threads);
        consumer.setConsumeThreadMax(threads);
        consumer.setPullBatchSize(1024);
        consumer.subscribe(args[2], "*");
        if (orderly) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                handle(measure, messages);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                handle(measure, messages);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        measure.conclude(Long.parseLong(args[8]));
    }

    private static void handle(Measure measure, List<MessageExt> messages) {
        measure.begin();
        for (MessageExt message : messages) {
            String key = message.getQueueId() + "/" + message.getProperty("__SHARDINGKEY");
            measure.handle(key, message.getQueueOffset(), message.getBody());
        }
        measure.end(messages.size());
    }
}
