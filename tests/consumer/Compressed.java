import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.hook.SendMessageContext;
import org.apache.rocketmq.client.hook.SendMessageHook;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;

/**
 * RocketMQ's own producer, with bodies that it compresses: one of each kind it knows, which is the name of the
 * kind again and again, and then three short ones in a batch, which it does not compress. Prints each kind with the
 * bytes of the body that is sent.
 *
 * <p>Arguments: name server, topic (of one queue), times that a name is said.
 */
public final class Compressed {
    public static void main(String[] args) {
        try {
            send(args);
        } catch (Exception error) {
            error.printStackTrace();
            // A client that is not shut down keeps its process alive.
            System.exit(1);
        }
    }

    private static void send(String[] args) throws Exception {
        for (CompressionType type : CompressionType.values()) {
            DefaultMQProducer producer = started(type.name(), args[0]);
            producer.setCompressType(type);
            producer.getDefaultMQProducerImpl().registerSendMessageHook(new Sizes(type.name()));
            producer.send(message(args[1], type.name().repeat(Integer.parseInt(args[2]))));
            producer.shutdown();
        }
        DefaultMQProducer producer = started("batch", args[0]);
        List<Message> batch = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            batch.add(message(args[1], "batch-" + number));
        }
        producer.send(batch);
        producer.shutdown();
    }

    /** Prints what is sent. */
    private static final class Sizes implements SendMessageHook {
        private final String kind;

        Sizes(String kind) {
            this.kind = kind;
        }

        @Override
        public String hookName() {
            return kind;
        }

        @Override
        public void sendMessageBefore(SendMessageContext context) {
            System.out.println(kind + " " + context.getMessage().getBody().length);
        }

        @Override
        public void sendMessageAfter(SendMessageContext context) {
        }
    }

    private static DefaultMQProducer started(String name, String nameServer) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("compressed-" + name);
        producer.setNamesrvAddr(nameServer);
        // Of which the first connections alone can take 3 s, its default, on a busy machine.
        producer.setSendMsgTimeout(30_000);
        producer.start();
        return producer;
    }

    private static Message message(String topic, String body) {
        return new Message(topic, "", "order-1", body.getBytes(StandardCharsets.UTF_8));
    }
}
