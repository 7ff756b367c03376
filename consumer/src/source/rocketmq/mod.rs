//! The adapter to RocketMQ 5 by its remoting protocol.
