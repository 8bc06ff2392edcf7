// Command load is both ends of what load_balancer.py measures: a backend that answers as vLLM does, and its clients.
//
//	load serve ADDRESS
//	load run -to ADDRESS[,ADDRESS...] [options]
//
// HTTP is written and read by hand here: net/http would take more of the two processors than a load balancer does.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const pause = 20 * time.Millisecond // after a failure: whoever is refused at once does not ask in a tight loop

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		log.Fatal(serve(os.Args[2]))
	case len(os.Args) > 3 && os.Args[1] == "run":
		run(os.Args[2:])
	default:
		log.Fatal("load serve ADDRESS | load run -to ADDRESS[,ADDRESS...]")
	}
}

// message is the head of a request or a response.
type message struct {
	first   string // its first line
	length  int    // of the body; -1: not told
	chunked bool
	last    bool   // the connection ends after it
	server  string // which backend has answered
}

func readHead(reader *bufio.Reader) (message, error) {
	head := message{length: -1}
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return head, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return head, nil
		}
		if head.first == "" {
			head.first = string(line)
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			head.length, _ = strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			head.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			head.last = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("x-served-by")):
			head.server = string(value)
		}
	}
}

// The backend.

var (
	text  = strings.Repeat("token ", 160)
	plain = `{"id":"cmpl-1","object":"chat.completion","model":"bench","choices":[{"index":0,"message":{"role":"assistant",` +
		`"content":"` + text + `"},"finish_reason":"stop"}]}`
	event = chunk(`data: {"id":"cmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":` +
		`[{"index":0,"delta":{"content":" ` + text[:96] + `"},"logprobs":null,"finish_reason":null}]}` + "\n\n")
	end    = append(chunk("data: [DONE]\n\n"), "0\r\n\r\n"...)
	wanted = []byte(`"user":"`) // a field of OpenAI's API that every load balancer hands on, here with what is wanted
)

func chunk(data string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data) }

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go answerAll(connection, address)
	}
}

func answerAll(connection net.Conn, name string) {
	defer connection.Close()
	reader := bufio.NewReader(connection)
	for {
		request, err := readHead(reader)
		if err != nil || request.chunked { // nobody sends these here
			return
		}
		body := make([]byte, max(request.length, 0))
		if _, err := io.ReadFull(reader, body); err != nil {
			return
		}
		if err := answer(connection, name, request.first, body); err != nil || request.last {
			return
		}
	}
}

// answer sends a number of chunks, or one whole answer where that number is 0, as the request says: "NUMBER FIRST PACE",
// both in milliseconds.
func answer(connection net.Conn, name, first string, body []byte) error {
	head := "HTTP/1.1 200 OK\r\nX-Served-By: " + name + "\r\n"
	if strings.HasPrefix(first, "GET ") {
		list := `{"object":"list","data":[{"id":"bench","object":"model"}]}`
		_, err := fmt.Fprintf(connection, "%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", head, len(list), list)
		return err
	}
	number, wait, pace := 0, 0, 0
	if place := bytes.Index(body, wanted); place >= 0 {
		fmt.Sscan(strings.ReplaceAll(string(body[place+len(wanted):min(place+40, len(body))]), `"`, " "), &number, &wait, &pace)
	}
	due := time.Now().Add(time.Duration(wait) * time.Millisecond)
	if number == 0 {
		time.Sleep(time.Until(due))
		_, err := io.WriteString(connection, head+"Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(plain))+"\r\n\r\n"+plain)
		return err
	}
	// vLLM sends the head of a stream before it has a token.
	_, err := io.WriteString(connection, head+"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	for ; number > 0 && err == nil; number-- {
		time.Sleep(time.Until(due))
		_, err = connection.Write(event)
		due = due.Add(time.Duration(pace) * time.Millisecond)
	}
	if err == nil {
		_, err = connection.Write(end)
	}
	return err
}

// The clients.

type options struct {
	to                                 []string
	key                                string
	secure                             bool
	streams, plain, fresh              int
	least, most, wait, pace, plainWait int
	seed                               int64
	duration, ramp, timeout            time.Duration
}

// record is what became of a request. Times are seconds of the wall clock, which all processes of the machine share.
type record struct {
	Stream bool    `json:"stream"`
	Start  float64 `json:"start"`
	First  float64 `json:"first"` // its first token, or all of the answer
	End    float64 `json:"end"`
	Server string  `json:"server"`
	Error  string  `json:"error"`
	Gaps   []int64 `json:"gaps"` // microseconds between two chunks
}

func run(arguments []string) {
	var given options
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	to := flags.String("to", "", "addresses, asked in turn")
	flags.StringVar(&given.key, "key", "", "of the API")
	flags.BoolVar(&given.secure, "tls", false, "speak TLS, whatever the certificate")
	flags.IntVar(&given.streams, "streams", 0, "clients that stream, each time by a new connection")
	flags.IntVar(&given.plain, "plain", 0, "clients that do not, and keep their connection")
	flags.IntVar(&given.fresh, "fresh", 0, "how many of these do not keep it")
	flags.IntVar(&given.least, "least", 50, "chunks of a stream")
	flags.IntVar(&given.most, "most", 50, "chunks of a stream")
	flags.IntVar(&given.wait, "wait", 30, "milliseconds to the first chunk")
	flags.IntVar(&given.pace, "pace", 20, "milliseconds from chunk to chunk")
	flags.IntVar(&given.plainWait, "plain-wait", 0, "milliseconds to an answer that is not streamed")
	flags.Int64Var(&given.seed, "seed", 1, "of the lengths")
	flags.DurationVar(&given.duration, "for", time.Second, "how long requests begin")
	flags.DurationVar(&given.ramp, "ramp", 0, "in which the clients begin, one after the other")
	flags.DurationVar(&given.timeout, "timeout", 10*time.Second, "for a whole answer")
	flags.Parse(arguments)
	given.to = strings.Split(*to, ",")

	began := time.Now()
	clients := given.streams + given.plain
	found := make([][]record, clients)
	var all sync.WaitGroup
	for number := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			time.Sleep(given.ramp * time.Duration(number) / time.Duration(clients))
			found[number] = newClient(given, number).work(began.Add(given.duration))
		}()
	}
	all.Wait()
	records := []record{}
	for _, some := range found {
		records = append(records, some...)
	}
	if err := json.NewEncoder(os.Stdout).Encode(records); err != nil {
		log.Fatal(err)
	}
}

type client struct {
	options
	number     int
	stream     bool
	keeps      bool
	lengths    *rand.Rand
	connection net.Conn
	reader     *bufio.Reader
}

func newClient(given options, number int) *client {
	stream := number < given.streams
	return &client{
		options: given,
		number:  number,
		stream:  stream,
		keeps:   !stream && number >= given.streams+given.fresh,
		lengths: rand.New(rand.NewSource(given.seed*1000 + int64(number))),
	}
}

func (c *client) work(until time.Time) []record {
	var records []record
	for turn := c.number; time.Now().Before(until); turn++ {
		start := time.Now()
		result := record{Stream: c.stream, Start: seconds(start)}
		if err := c.ask(c.to[turn%len(c.to)], start, &result); err != nil {
			result.Error = err.Error()
			c.drop()
		}
		result.End = seconds(time.Now())
		if result.First == 0 {
			result.First = result.End
		}
		records = append(records, result)
		if !c.keeps {
			c.drop()
		}
		if result.Error != "" {
			time.Sleep(pause)
		}
	}
	c.drop()
	return records
}

func seconds(moment time.Time) float64 { return float64(moment.UnixNano()) / 1e9 }

func (c *client) drop() {
	if c.connection != nil {
		c.connection.Close()
		c.connection = nil
	}
}

func (c *client) ask(address string, start time.Time, result *record) error {
	if c.connection == nil {
		connection, err := net.DialTimeout("tcp", address, c.timeout)
		if err != nil {
			return err
		}
		if c.secure {
			connection = tls.Client(connection, &tls.Config{InsecureSkipVerify: true}) // the one that this host has just made
		}
		c.connection, c.reader = connection, bufio.NewReader(connection)
	}
	c.connection.SetDeadline(start.Add(c.timeout))
	if _, err := c.connection.Write(c.request(address)); err != nil {
		return err
	}
	response, err := readHead(c.reader)
	if err != nil {
		return err
	}
	result.Server = response.server
	body := io.LimitReader(c.reader, int64(response.length))
	if response.chunked {
		body = httputil.NewChunkedReader(c.reader)
	}
	if !strings.HasPrefix(response.first, "HTTP/1.1 200") {
		return errors.New(response.first)
	}
	if c.stream {
		return readEvents(body, start, result)
	}
	length, err := io.Copy(io.Discard, body)
	if err == nil && response.chunked {
		_, err = c.reader.ReadSlice('\n') // what follows the last chunk
	} else if err == nil && length < int64(response.length) {
		err = io.ErrUnexpectedEOF
	}
	if response.last {
		c.drop()
	}
	return err
}

func (c *client) request(address string) []byte {
	number, wait, pace := 0, c.plainWait, 0
	if c.stream {
		number, wait, pace = c.least+c.lengths.Intn(c.most-c.least+1), c.wait, c.pace
	}
	body := fmt.Sprintf(`{"model":"bench","user":"%d %d %d","stream":%t,"messages":[{"role":"user","content":"%s"}]}`,
		number, wait, pace, c.stream, text[:480])
	key := ""
	if c.key != "" {
		key = "Authorization: Bearer " + c.key + "\r\n"
	}
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		address, key, len(body), body)
}

// readEvents takes a stream for whole that says so itself and whose last chunk comes, too.
func readEvents(body io.Reader, start time.Time, result *record) error {
	lines, last, done := bufio.NewReader(body), start, false
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && done {
			return nil
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte("data: ")) {
			continue
		}
		now := time.Now()
		if done = bytes.HasPrefix(line, []byte("data: [DONE]")); done {
			continue
		}
		if result.First == 0 {
			result.First = seconds(now)
		} else {
			result.Gaps = append(result.Gaps, now.Sub(last).Microseconds())
		}
		last = now
	}
}
