// Program order-handler handles the orders of a topic for Keylane over gRPC. What you write is in handler.go;
// here is the stream, which needs no change.
package main

// Made anew with protoc 3.21 or newer, and protoc-gen-go 1.36.11 and protoc-gen-go-grpc 1.6.1:
//
//go:generate protoc --proto_path=../../proto --go_out=. --go-grpc_out=. --go_opt=module=example.com/order-handler,Mkeylane/v1/handler.proto=example.com/order-handler/keylanev1 --go-grpc_opt=module=example.com/order-handler,Mkeylane/v1/handler.proto=example.com/order-handler/keylanev1 keylane/v1/handler.proto

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "example.com/order-handler/keylanev1"
)

const (
	// Longest request: one call with all its messages.
	longestRequest = 64 << 20
	// Most results of one response.
	mostResults = 256
	// How long a stream that ends answers calls that were under way to it.
	linger = 100 * time.Millisecond
)

type server struct {
	pb.UnimplementedHandlerServer
	// Closed when the process is to end.
	ending chan struct{}
}

// How a call ended; without a result if it was cancelled, or came too late.
type ended struct {
	id     uint64
	result *pb.Result
}

// Handle works on one stream until the executor closes it or the process is to end.
func (s *server) Handle(stream pb.Handler_HandleServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	topic := first.GetHello().GetTopic()
	if err := stream.Send(&pb.HandleResponse{}); err != nil {
		return err
	}
	requests := make(chan *pb.HandleRequest)
	go receive(stream, requests)

	done := make(chan ended)
	running := map[uint64]context.CancelFunc{}
	ending, isEnding := s.ending, false
	var quiet <-chan time.Time
	for requests != nil || len(running) > 0 {
		response := &pb.HandleResponse{}
		select {
		case request, open := <-requests:
			if !open {
				requests = nil
				continue
			}
			for _, call := range request.Calls {
				if isEnding {
					response.Results = append(response.Results, notTaken(call))
					quiet = time.After(linger)
					continue
				}
				// Ends too when the stream breaks.
				ctx, cancel := context.WithDeadline(stream.Context(), time.UnixMilli(call.DeadlineMs))
				running[call.Id] = cancel
				go func() {
					outcome := ended{call.Id, work(ctx, topic, call)}
					select {
					case done <- outcome:
					case <-stream.Context().Done():
					}
				}()
			}
			for _, id := range request.Cancelled {
				if cancel, runs := running[id]; runs {
					cancel()
				}
			}
			if len(response.Results) == 0 {
				continue
			}
		case outcome := <-done:
			finish(outcome, running, response)
			for more := true; more && len(response.Results) < mostResults; {
				select {
				case outcome := <-done:
					finish(outcome, running, response)
				default:
					more = false
				}
			}
		case <-ending:
			ending, isEnding = nil, true
			quiet = time.After(linger)
			response.MaxInFlight = new(uint32) // No more calls.
		case <-quiet:
			if len(running) == 0 {
				return nil
			}
			quiet = time.After(linger)
			continue
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	return nil
}

// Hands requests over until the executor sends no more.
func receive(stream pb.Handler_HandleServer, requests chan<- *pb.HandleRequest) {
	defer close(requests)
	for {
		request, err := stream.Recv()
		if err != nil {
			return
		}
		select {
		case requests <- request:
		case <-stream.Context().Done():
			return
		}
	}
}

// Handles the messages of a call one after the other; gives no result if its time is over before.
func work(ctx context.Context, topic string, call *pb.Call) *pb.Result {
	for done, message := range call.Messages {
		if ctx.Err() != nil {
			return nil
		}
		attempt := call.Attempt
		if done > 0 {
			attempt = 1
		}
		err := run(ctx, topic, call, message, attempt)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		status := pb.Status_STATUS_FAILED
		if errors.As(err, new(neverTaken)) {
			status = pb.Status_STATUS_PERMANENT
		}
		return &pb.Result{CallId: call.Id, Status: status, Acked: uint32(done), Reason: err.Error()}
	}
	return &pb.Result{CallId: call.Id, Status: pb.Status_STATUS_DONE}
}

func notTaken(call *pb.Call) *pb.Result {
	return &pb.Result{CallId: call.Id, Status: pb.Status_STATUS_NOT_TAKEN, Reason: "the handler ends"}
}

// Takes a call off the running ones and adds how it ended.
func finish(outcome ended, running map[uint64]context.CancelFunc, response *pb.HandleResponse) {
	running[outcome.id]()
	delete(running, outcome.id)
	if outcome.result == nil {
		response.Ended = append(response.Ended, outcome.id)
	} else {
		response.Results = append(response.Results, outcome.result)
	}
}

// The executor is in the same pod: SOCKET names a socket for handler.grpc.unixSocket, else PORT a port of
// 127.0.0.1 for handler.grpc.port.
func listen() (net.Listener, error) {
	socket := os.Getenv("SOCKET")
	if socket == "" {
		port := os.Getenv("PORT")
		if port == "" {
			port = "9090"
		}
		return net.Listen("tcp", "127.0.0.1:"+port)
	}
	// A process before this one may have left it.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	// The executor may run as another user.
	return listener, os.Chmod(socket, 0o666)
}

func main() {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	handler := &server{ending: make(chan struct{})}
	ready := health.NewServer()
	ready.SetServingStatus(pb.Handler_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	serving := grpc.NewServer(grpc.MaxRecvMsgSize(longestRequest))
	pb.RegisterHandlerServer(serving, handler)
	healthpb.RegisterHealthServer(serving, ready)

	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	over := make(chan struct{})
	go func() {
		<-terminated.Done()
		ready.Shutdown()
		close(handler.ending)
		serving.GracefulStop()
		close(over)
	}()
	log.Printf("listening on %s", listener.Addr())
	if err := serving.Serve(listener); err != nil {
		log.Fatal(err)
	}
	<-over
}
