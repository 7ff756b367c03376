import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Confluent's parallel-consumer in its order by key, as a measure.
 *
 * <p>Arguments: bootstrap server, topic, group (a new one starts at the first message), messages,
 * milliseconds of work, calls at once, longest time in seconds. Prints "started" at the first message,
 * and one line of JSON.
 */
public final class ParallelConsumer {
    public static void main(String[] args) throws Exception {
        if (args.length != 7) {
            System.err.println("usage: ParallelConsumer BOOTSTRAP_SERVER TOPIC GROUP MESSAGES WORK_MS CALLS"
                + " LIMIT_SECONDS");
            System.exit(2);
        }
        Measure measure = new Measure(Long.parseLong(args[3]), 0, Long.parseLong(args[4]));
        Properties properties = new Properties();
        properties.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        properties.put(ConsumerConfig.GROUP_ID_CONFIG, args[2]);
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        // It commits by itself.
        properties.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        properties.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 1024);
        KafkaConsumer<String, byte[]> consumer =
            new KafkaConsumer<>(properties, new StringDeserializer(), new ByteArrayDeserializer());
        ParallelConsumerOptions<String, byte[]> options = ParallelConsumerOptions.<String, byte[]>builder()
            .consumer(consumer)
            .ordering(ProcessingOrder.KEY)
            .maxConcurrency(Integer.parseInt(args[5]))
            // It looks for the setting of above in a field that newer clients of Kafka do not have.
            .ignoreReflectiveAccessExceptionsForAutoCommitDisabledCheck(true)
            .build();
        ParallelStreamProcessor<String, byte[]> processor =
            ParallelStreamProcessor.createEosStreamProcessor(options);
        processor.subscribe(List.of(args[1]));
        processor.poll(context -> {
            measure.begin();
            ConsumerRecord<String, byte[]> record = context.getSingleConsumerRecord();
            measure.handle(record.partition() + "/" + record.key(), record.offset(), record.value());
            measure.end(1);
        });
        measure.conclude(Long.parseLong(args[6]));
    }
}
