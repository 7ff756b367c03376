//! What perf reports, in words.

/// How many costs are told.
const COSTS: usize = 5;
const KERNEL: &str = "k";

/// What functions do, by what their names contain; the first that fits counts.
const MEANINGS: &[(&str, &str)] = &[
    // Whose function it is counts before what it does.
    (
        "bench_rocketmq::order",
        "judging the order, which only the benchmark does",
    ),
    ("bench_rocketmq", "the benchmark's handler"),
    (
        "keylane_consumer::lane",
        "keeping keys in order and progress (lanes)",
    ),
    (
        "keylane_consumer::exec",
        "pulling, dispatching and committing (executor)",
    ),
    (
        "keylane_consumer::source",
        "reading the broker's replies (source)",
    ),
    (
        "keylane_consumer::message",
        "reading messages and their properties",
    ),
    ("keylane_consumer::handler", "calling the handler"),
    ("keylane_consumer::ownership", "owning queues"),
    (
        "keylane_consumer::journal",
        "writing and reading the journal",
    ),
    ("keylane_consumer", "other parts of Keylane"),
    ("rocketmq_", "RocketMQ's client library"),
    ("hyper", "HTTP"),
    ("h2::", "HTTP/2"),
    ("http::", "HTTP"),
    ("tonic", "gRPC"),
    ("prost", "reading and writing protobuf"),
    ("tokio", "running and waking tasks (tokio)"),
    ("futures", "running and waking tasks"),
    ("hash", "looking up keys in hash tables"),
    ("crc32", "checksums"),
    ("memcpy", "copying memory"),
    ("memmove", "copying memory"),
    ("memset", "clearing memory"),
    ("malloc", "allocating memory"),
    ("realloc", "allocating memory"),
    ("calloc", "allocating memory"),
    ("free", "freeing memory"),
    ("fmt::", "making text"),
    ("from_utf8", "reading text"),
    ("clock_gettime", "reading the clock"),
    ("drop_in_place", "freeing what is not needed any more"),
    ("alloc::", "Rust's standard library"),
    ("core::", "Rust's standard library"),
    ("std::", "Rust's standard library"),
];

/// The same of the kernel's.
const KERNEL_MEANINGS: &[(&str, &str)] = &[
    ("copy", "copying between the kernel and the process"),
    ("tcp", "sending and receiving (TCP)"),
    ("skb", "sending and receiving (buffers)"),
    ("sock", "sending and receiving (sockets)"),
    ("net", "sending and receiving (network)"),
    ("futex", "making threads wait and go on"),
    ("epoll", "waiting for sockets"),
    ("sched", "switching between threads"),
    ("switch", "switching between threads"),
    ("wake", "making threads wait and go on"),
    ("page", "giving memory to the process"),
    ("syscall", "entering and leaving the kernel"),
];

/// The first rows of a report of shares, objects and functions.
pub fn read(report: &str) -> Vec<String> {
    let rows = report.lines().map(str::trim);
    let rows = rows.filter(|row| !row.starts_with('#'));
    rows.filter_map(words).take(COSTS).collect()
}

/// A row in words, such as `12.34%  bench-rocketmq  [.] tokio::runtime::park`.
fn words(row: &str) -> Option<String> {
    let (share, row) = row.split_once('%')?;
    let share: f64 = share.trim().parse().ok()?;
    // Between object and function stands whose it is: the kernel's, or the process's.
    let (object, row) = row.trim_start().split_once(" [")?;
    let (whose, function) = row.split_once("] ")?;
    // After the function come columns of counters that most machines do not have.
    let function = function.trim_end_matches([' ', '-']);
    let object = object.trim();
    let is_kernel = whose == KERNEL;
    let meaning = meaning(is_kernel, function);
    let place = if is_kernel { "the kernel" } else { object };
    Some(format!("{share:5.2} %  {meaning}: {function} in {place}"))
}

fn meaning(is_kernel: bool, function: &str) -> &'static str {
    if function.starts_with("0x") {
        return "a function without a name";
    }
    let (meanings, other) = if is_kernel {
        (KERNEL_MEANINGS, "other work of the kernel")
    } else {
        (MEANINGS, "other work")
    };
    let found = meanings.iter().find(|(part, _)| function.contains(*part));
    found.map_or(other, |(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
# Samples: 45  of event 'cpu-clock:ppp'
#
# Overhead  Shared Object         Symbol                                IPC   [IPC Coverage]
# ........  ....................  ....................................  ....................
#
    18.89%  bench-rocketmq        [.] <keylane_consumer::lane::store::Store>::take::<alloc::vec::Vec<u8>>  -      -
    12.67%  [kernel.kallsyms]     [k] _copy_to_iter                     -      -            \u{20}
     6.44%  libc.so.6             [.] __memmove_avx_unaligned_erms      -      -
     4.22%  [kernel.kallsyms]     [k] __rcu_read_lock                   -      -
     2.22%  libother.so           [.] 0x000000000001a2b3                -      -
     1.00%  bench-rocketmq        [.] main                              -      -
";

    #[test]
    fn the_five_largest_costs_are_told_in_words() {
        assert_eq!(
            read(REPORT),
            [
                "18.89 %  keeping keys in order and progress (lanes): \
                 <keylane_consumer::lane::store::Store>::take::<alloc::vec::Vec<u8>> in bench-rocketmq",
                "12.67 %  copying between the kernel and the process: _copy_to_iter in the kernel",
                " 6.44 %  copying memory: __memmove_avx_unaligned_erms in libc.so.6",
                " 4.22 %  other work of the kernel: __rcu_read_lock in the kernel",
                " 2.22 %  a function without a name: 0x000000000001a2b3 in libother.so",
            ]
        );
    }

    #[test]
    fn a_report_without_rows_tells_nothing() {
        assert!(read("# Samples: 0\n\n").is_empty());
    }
}
