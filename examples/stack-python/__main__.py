"""An application that uses the Consul stack's outputs, in Python."""

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment

NAME = "orders"

config = pulumi.Config()
consul = pulumi.StackReference(config.require("consulStack"))


def access_of(apps):
    """What `orders` needs to reach Consul: the environment of its container, and its token's public id."""
    access = (apps or {}).get(NAME)
    if access is None:
        raise Exception(f'the Consul stack has no token for "{NAME}": add it to consul:apps there')
    if "environment" not in access:
        raise Exception(f'the Consul stack gives no environment for "{NAME}": run `pulumi up` there with this release')
    return access


access = consul.get_output("apps").apply(access_of)
labels = {"app.kubernetes.io/name": NAME}

Deployment(
    NAME,
    metadata={"name": NAME, "namespace": config.require("namespace"), "labels": labels},
    spec={
        "replicas": 3,
        "selector": {"match_labels": labels},
        "template": {
            # A new token rolls the pods.
            "metadata": {"labels": labels, "annotations": {"consul-token": access["accessorId"]}},
            "spec": {
                "automount_service_account_token": False,
                "containers": [
                    {"name": NAME, "image": config.require("image"), "env": access["environment"]},
                ],
            },
        },
    },
)
