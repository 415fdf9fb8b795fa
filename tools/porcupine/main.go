// Checks what clients of a key/value store saw for linearizability. It reads a history from standard input (lab/matrix
// has its form), and prints one JSON object: whether some order of the operations explains all that clients saw, each
// operation taking effect at one moment between its call and its return.
package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is one request of a client. Times are microseconds of one clock.
type operation struct {
	Client int    `json:"client"`
	Kind   string `json:"kind"` // "write" or "read"
	Key    string `json:"key"`
	// Written, or read; null where a read found no key.
	Value *string `json:"value"`
	Call  int64   `json:"call"`
	// Null where the client does not know whether a write took effect: it may have, at any time after the call.
	Return *int64 `json:"return"`
}

type verdict struct {
	// "ok", "broken", or "unknown" where the time was over first.
	Result string `json:"result"`
	// Operations that were checked.
	Operations int `json:"operations"`
	// Keys whose operations no order explains.
	Keys []string `json:"keys"`
}

// patience is how long one key's operations may take to check.
const patience = 60 * time.Second

var register = porcupine.Model{
	Init: func() interface{} { return "" },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		in := input.(operation)
		if in.Kind == "write" {
			return true, *in.Value
		}
		return state == output, state
	},
}

func main() {
	var history []operation
	if err := json.NewDecoder(os.Stdin).Decode(&history); err != nil {
		fail("the history is no JSON of the expected form: %v", err)
	}
	byKey := map[string][]operation{}
	for i, op := range history {
		if why := wrong(op); why != "" {
			fail("operation %d of the history: %s", i, why)
		}
		byKey[op.Key] = append(byKey[op.Key], op)
	}
	said := verdict{Result: "ok", Keys: []string{}}
	for key, operations := range byKey {
		checked := known(operations)
		said.Operations += len(checked)
		switch porcupine.CheckOperationsTimeout(register, checked, patience) {
		case porcupine.Illegal:
			said.Result = "broken"
			said.Keys = append(said.Keys, key)
		case porcupine.Unknown:
			if said.Result == "ok" {
				said.Result = "unknown"
			}
			said.Keys = append(said.Keys, key)
		}
	}
	sort.Strings(said.Keys)
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		fail("%v", err)
	}
}

// wrong says what is wrong with an operation, "" for nothing.
func wrong(op operation) string {
	switch {
	case op.Kind != "write" && op.Kind != "read":
		return fmt.Sprintf("its kind is %q, neither write nor read", op.Kind)
	case op.Kind == "write" && (op.Value == nil || *op.Value == ""):
		return "it writes nothing"
	case op.Kind == "read" && op.Return == nil:
		return "it reads and has no return"
	case op.Return != nil && *op.Return < op.Call:
		return "it returns before it is called"
	}
	return ""
}

// known leaves out writes of unknown outcome whose value nobody read: they may as well never have taken effect, and each
// of them would double the orders to try. Values are written once, so whoever read a value read that write.
func known(operations []operation) []porcupine.Operation {
	read := map[string]bool{}
	for _, op := range operations {
		if op.Kind == "read" && op.Value != nil {
			read[*op.Value] = true
		}
	}
	var checked []porcupine.Operation
	for _, op := range operations {
		end := int64(math.MaxInt64)
		if op.Return != nil {
			end = *op.Return
		} else if !read[*op.Value] {
			continue
		}
		output := ""
		if op.Value != nil {
			output = *op.Value
		}
		checked = append(checked, porcupine.Operation{
			ClientId: op.Client, Input: op, Call: op.Call, Output: output, Return: end,
		})
	}
	return checked
}

func fail(format string, values ...interface{}) {
	fmt.Fprintf(os.Stderr, "porcupine: "+format+"\n", values...)
	os.Exit(2)
}
