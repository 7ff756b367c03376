package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	pb "example.com/order-handler/keylanev1"
)

// To see what a failure does: the first attempt of every message of this key fails.
var failKey, toldToFail = os.LookupEnv("FAIL_KEY")

var lines = log.New(os.Stdout, "", 0)

// neverTaken says that no attempt will help: the message goes to the dead-letter topic at once.
type neverTaken struct{ error }

// handle is your code. Nil finishes the message; an error means that it comes again, in its place. Two
// messages of one key are never under way at once, those of others are.
//
// A message comes at least once: after a crash what was handled last may come again, its key's successors
// behind it. To do a thing once, write message.Offset, which only grows for one queue, in the transaction
// that does the thing, beside the order: what is not greater than the stored one is done already.
//
// The context ends when the call has taken handler.timeout: stop then.
func handle(ctx context.Context, call *pb.Call, message *pb.Message, attempt uint32) error {
	if !json.Valid(message.Body) {
		return neverTaken{errors.New("the order is not JSON")}
	}
	if toldToFail && attempt == 1 && call.GetKey() == failKey {
		return errors.New("told to fail the first attempt")
	}
	return ctx.Err()
}

// run handles one message and logs a line of JSON about it.
func run(ctx context.Context, topic string, call *pb.Call, message *pb.Message, attempt uint32) error {
	started := time.Now().UnixMicro()
	err := handle(ctx, call, message, attempt)
	line, encodingError := json.Marshal(map[string]any{
		"source":    fmt.Sprintf("rocketmq://%s/%s/%d", call.Broker, topic, call.QueueId),
		"key":       call.Key,
		"sequence":  message.Offset,
		"attempt":   attempt,
		"startedUs": started,
		"endedUs":   time.Now().UnixMicro(),
		"ok":        err == nil,
	})
	if encodingError != nil {
		return encodingError
	}
	lines.Print(string(line))
	return err
}
