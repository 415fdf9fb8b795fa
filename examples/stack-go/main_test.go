package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// The cloud of the tests: one Consul stack, and what the program makes.
type mocks struct {
	outputs map[string]interface{}
	made    map[string]resource.PropertyMap
}

func (m mocks) NewResource(args pulumi.MockResourceArgs) (string, resource.PropertyMap, error) {
	if args.TypeToken == "pulumi:pulumi:StackReference" {
		return args.Name, resource.NewPropertyMapFromMap(map[string]interface{}{
			"name": args.Name, "outputs": m.outputs, "secretOutputNames": []interface{}{},
		}), nil
	}
	m.made[args.TypeToken] = args.Inputs
	return args.Name, args.Inputs, nil
}

func (m mocks) Call(pulumi.MockCallArgs) (resource.PropertyMap, error) {
	return resource.PropertyMap{}, nil
}

func run(outputs map[string]interface{}) (map[string]resource.PropertyMap, error) {
	m := mocks{outputs: outputs, made: map[string]resource.PropertyMap{}}
	config := map[string]string{
		"orders:consulStack": "organization/consul/prod",
		"orders:namespace":   "shop",
		"orders:image":       "registry.example.com/orders:1.0.0",
	}
	err := pulumi.RunErr(program, pulumi.WithMocks("orders", "prod", m), func(info *pulumi.RunInfo) { info.Config = config })
	return m.made, err
}

// OUTPUTS has a Consul stack's outputs as JSON.
func given(t *testing.T) map[string]interface{} {
	var outputs map[string]interface{}
	if err := json.Unmarshal([]byte(os.Getenv("OUTPUTS")), &outputs); err != nil {
		t.Skip("OUTPUTS has no outputs of a Consul stack")
	}
	return outputs
}

func TestEnvironment(t *testing.T) {
	outputs := given(t)
	made, err := run(outputs)
	if err != nil {
		t.Fatal(err)
	}
	spec := made["kubernetes:apps/v1:Deployment"]["spec"].ObjectValue()
	template := spec["template"].ObjectValue()
	container := template["spec"].ObjectValue()["containers"].ArrayValue()[0].ObjectValue()
	orders := outputs["apps"].(map[string]interface{})["orders"].(map[string]interface{})
	if got := container["env"].Mappable(); !reflect.DeepEqual(got, orders["environment"]) {
		t.Errorf("the container has %v, the Consul stack says %v", got, orders["environment"])
	}
	annotations := template["metadata"].ObjectValue()["annotations"].Mappable()
	if want := map[string]interface{}{"consul-token": orders["accessorId"]}; !reflect.DeepEqual(annotations, want) {
		t.Errorf("annotations: %v", annotations)
	}
}

func TestUnknown(t *testing.T) {
	given(t)
	for apps, want := range map[string]string{
		`{}`:            "add it to consul:apps there",
		`{"orders":{}}`: "run `pulumi up` there with this release",
	} {
		var value interface{}
		_ = json.Unmarshal([]byte(apps), &value)
		if _, err := run(map[string]interface{}{"apps": value}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", apps, err)
		}
	}
}
