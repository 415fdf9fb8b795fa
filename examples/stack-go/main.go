// An application that uses the Consul stack's outputs, in Go.
package main

import (
	"fmt"

	appsv1 "github.com/pulumi/pulumi-kubernetes/sdk/v4/go/kubernetes/apps/v1"
	corev1 "github.com/pulumi/pulumi-kubernetes/sdk/v4/go/kubernetes/core/v1"
	metav1 "github.com/pulumi/pulumi-kubernetes/sdk/v4/go/kubernetes/meta/v1"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi/config"
)

const name = "orders"

func main() {
	pulumi.Run(program)
}

func program(ctx *pulumi.Context) error {
	conf := config.New(ctx, "")
	consul, err := pulumi.NewStackReference(ctx, conf.Require("consulStack"), nil)
	if err != nil {
		return err
	}
	apps := consul.GetOutput(pulumi.String("apps"))
	environment := apps.ApplyT(environmentOf).(corev1.EnvVarArrayOutput)
	// The token's public id: a new token rolls the pods.
	accessor := apps.ApplyT(accessorOf).(pulumi.StringOutput)
	labels := pulumi.StringMap{"app.kubernetes.io/name": pulumi.String(name)}
	metadata := metav1.ObjectMetaArgs{
		Name:      pulumi.String(name),
		Namespace: pulumi.String(conf.Require("namespace")),
		Labels:    labels,
	}
	_, err = appsv1.NewDeployment(ctx, name, &appsv1.DeploymentArgs{
		Metadata: metadata,
		Spec: appsv1.DeploymentSpecArgs{
			Replicas: pulumi.Int(3),
			Selector: metav1.LabelSelectorArgs{MatchLabels: labels},
			Template: corev1.PodTemplateSpecArgs{
				Metadata: metav1.ObjectMetaArgs{
					Labels:      labels,
					Annotations: pulumi.StringMap{"consul-token": accessor},
				},
				Spec: corev1.PodSpecArgs{
					AutomountServiceAccountToken: pulumi.Bool(false),
					Containers: corev1.ContainerArray{corev1.ContainerArgs{
						Name:  pulumi.String(name),
						Image: pulumi.String(conf.Require("image")),
						Env:   environment,
					}},
				},
			},
		},
	})
	return err
}

// accessOf finds the application in the output `apps`.
func accessOf(apps interface{}) (map[string]interface{}, error) {
	all, _ := apps.(map[string]interface{})
	app, ok := all[name].(map[string]interface{})
	if !ok {
		return nil, fmt.Errorf("the Consul stack has no token for %q: add it to consul:apps there", name)
	}
	if _, ok := app["environment"].([]interface{}); !ok {
		return nil, fmt.Errorf("the Consul stack gives no environment for %q: run `pulumi up` there with this release", name)
	}
	return app, nil
}

// environmentOf gives the environment of the container as a pod spec has it.
func environmentOf(apps interface{}) ([]corev1.EnvVar, error) {
	app, err := accessOf(apps)
	if err != nil {
		return nil, err
	}
	environment := []corev1.EnvVar{}
	for _, entry := range app["environment"].([]interface{}) {
		environment = append(environment, variable(entry.(map[string]interface{})))
	}
	return environment, nil
}

func accessorOf(apps interface{}) (string, error) {
	app, err := accessOf(apps)
	if err != nil {
		return "", err
	}
	accessor, _ := app["accessorId"].(string)
	return accessor, nil
}

func variable(entry map[string]interface{}) corev1.EnvVar {
	result := corev1.EnvVar{Name: entry["name"].(string)}
	if value, ok := entry["value"].(string); ok {
		result.Value = &value
		return result
	}
	from := entry["valueFrom"].(map[string]interface{})
	if field, ok := from["fieldRef"].(map[string]interface{}); ok {
		path := field["fieldPath"].(string)
		result.ValueFrom = &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
		return result
	}
	secret := from["secretKeyRef"].(map[string]interface{})
	secretName := secret["name"].(string)
	result.ValueFrom = &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{Name: &secretName, Key: secret["key"].(string)},
	}
	return result
}
