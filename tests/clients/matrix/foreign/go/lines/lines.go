// Package lines is what the drivers of clients in Go share: calls that come as lines of JSON, and answers that go as such.
// Owns standard input and output. The calls: tests/clients/matrix/drivers/json_lines.py.
package lines

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
)

// Settings of writers and readers; nil is the client's default.
type Settings struct {
	Codec          *string `json:"codec"`
	Idempotent     *bool   `json:"idempotent"`
	Acks           *string `json:"acks"`
	LingerMs       *int    `json:"linger_ms"`
	RecordBytesMax *int32  `json:"record_bytes_max"`
	WaitMs         *int    `json:"wait_ms"`
	GiveUpMs       *int    `json:"give_up_ms"`
	Committed      bool    `json:"committed"`
	CreateOnRead   bool    `json:"create_on_read"`
	Reset          string  `json:"reset"`
}

// Joining is how a member joins its group.
type Joining struct {
	Protocol    string  `json:"protocol"`
	Instance    *string `json:"instance"`
	SessionMs   *int    `json:"session_ms"`
	Cooperative bool    `json:"cooperative"`
	ByHand      bool    `json:"by_hand"`
	Reset       string  `json:"reset"`
	Follows     bool    `json:"follows"`
	IsPattern   bool    `json:"is_pattern"`
}

// Record is one that is to be sent; values of headers are text in base64, or nil.
type Record struct {
	Key       *[]byte  `json:"key"`
	Value     *[]byte  `json:"value"`
	Headers   [][2]any `json:"headers"`
	Timestamp *int64   `json:"timestamp"`
}

// Call is one of any kind; each kind has its own fields.
type Call struct {
	Op         string             `json:"op"`
	ID         int                `json:"id"`
	Bootstrap  string             `json:"bootstrap"`
	ClientID   string             `json:"client_id"`
	Topic      string             `json:"topic"`
	Group      string             `json:"group"`
	Joining    Joining            `json:"joining"`
	Heartbeat  int                `json:"heartbeat_ms"`
	RefreshMs  int                `json:"refresh_ms"`
	Offset     int64              `json:"offset"`
	Partition  *int32             `json:"partition"`
	Partitions []int32            `json:"partitions"`
	Start      string             `json:"start"`
	At         int64              `json:"at"`
	Count      int                `json:"count"`
	TimeoutMs  int                `json:"timeout_ms"`
	Kind       string             `json:"kind"`
	Name       string             `json:"name"`
	Offsets    [][2]int64         `json:"offsets"`
	Values     map[string]*string `json:"values"`
	Settings   Settings           `json:"settings"`
	Records    []Record           `json:"records"`
}

// Answer is the one to a call; nil for "done".
type Answer map[string]any

// Serve performs call after call until standard input ends. What fails is answered with Kafka's number of the error,
// nil where it has none, and the client's own words.
func Serve(perform func(Call) (Answer, error), codeOf func(error) *int16) {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked Call
		if err := json.Unmarshal(line, &asked); err != nil {
			panic(err)
		}
		told, err := perform(asked)
		if err != nil {
			told = Answer{"error": Answer{"code": codeOf(err), "text": err.Error()}}
		} else if told == nil {
			told = Answer{}
		}
		if err := out.Encode(told); err != nil {
			panic(err)
		}
	}
}

// Version tells which version of a module this program was built with.
func Version(module string) (Answer, error) {
	info, _ := debug.ReadBuildInfo()
	for _, each := range info.Deps {
		if each.Path == module {
			return Answer{"version": each.Version[1:]}, nil
		}
	}
	return nil, fmt.Errorf("%s is not in the build", module)
}

// Unpacked gives the bytes of a header's value.
func Unpacked(packed any) ([]byte, error) {
	text, is := packed.(string)
	if !is {
		return nil, nil
	}
	var data []byte
	quoted, _ := json.Marshal(text)
	return data, json.Unmarshal(quoted, &data)
}
