import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Makes a topic of Kafka and sends it messages with the keys and bodies that standard input has in its
 * lines, each a key, a tab and a body.
 *
 * <p>Arguments: bootstrap server, topic, partitions.
 */
public final class Preload {
    public static void main(String[] args) throws Exception {
        if (args.length != 3) {
            System.err.println("usage: Preload BOOTSTRAP_SERVER TOPIC PARTITIONS");
            System.exit(2);
        }
        Properties properties = new Properties();
        properties.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        try (Admin admin = Admin.create(properties)) {
            NewTopic topic = new NewTopic(args[1], Integer.parseInt(args[2]), (short) 1);
            admin.createTopics(List.of(topic)).all().get();
        }
        properties.put(ProducerConfig.LINGER_MS_CONFIG, 20);
        properties.put(ProducerConfig.BATCH_SIZE_CONFIG, 131_072);
        AtomicReference<Exception> refused = new AtomicReference<>();
        try (KafkaProducer<String, String> producer =
                 new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
             BufferedReader lines =
                 new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                int tab = line.indexOf('\t');
                producer.send(
                    new ProducerRecord<>(args[1], line.substring(0, tab), line.substring(tab + 1)),
                    (sent, problem) -> {
                        if (problem != null) {
                            refused.set(problem);
                        }
                    });
            }
        }
        if (refused.get() != null) {
            throw refused.get();
        }
    }
}
