"""Puts a file into an OSS bucket, with the RAM role of the machine: oss-put.py BUCKET PREFIX FILE NAME

Signs with OSS signature version 4 (Alibaba Cloud, "Include a V4 signature in the Authorization header"). Python 3.6 and
its standard library are all it needs: every image with cloud-init has them, and none has the cloud's own tools.
"""
import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

METADATA = os.environ.get("METADATA_URL", "http://100.100.100.200")
# Metadata must never go through a proxy, and the bucket's internal endpoint is not behind one.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request(method, url, headers, body=None, timeout=10):
    with opener.open(urllib.request.Request(url, body, headers, method=method), timeout=timeout) as answer:
        return answer.read().decode()


def metadata(path):
    token = request("PUT", METADATA + "/latest/api/token", {"X-aliyun-ecs-metadata-token-ttl-seconds": "60"})
    return request("GET", METADATA + "/latest/meta-data/" + path, {"X-aliyun-ecs-metadata-token": token})


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def authorization(method, path, headers, region, key_id, key_secret):
    """The Authorization header; headers are lower-case, and all that count: content-md5, content-type, x-oss-*."""
    moment = headers["x-oss-date"]
    scope = "/".join([moment[:8], region, "oss", "aliyun_v4_request"])
    lines = "".join("%s:%s\n" % (name, headers[name].strip()) for name in sorted(headers))
    canonical = "\n".join([method, urllib.parse.quote(path), "", lines, "", headers["x-oss-content-sha256"]])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = ("aliyun_v4" + key_secret).encode()
    for part in scope.split("/"):
        key = sign(key, part)
    signature = sign(key, "\n".join(["OSS4-HMAC-SHA256", moment, scope, digest])).hex()
    return "OSS4-HMAC-SHA256 Credential=%s/%s,Signature=%s" % (key_id, scope, signature)


def put(bucket, key, file):
    region = metadata("region-id").strip()
    role = metadata("ram/security-credentials/").strip()
    credentials = json.loads(metadata("ram/security-credentials/" + role))
    endpoint = os.environ.get("OSS_ENDPOINT", "https://%s.oss-%s-internal.aliyuncs.com" % (bucket, region))
    md5 = hashlib.md5()
    for block in iter(lambda: file.read(1 << 20), b""):
        md5.update(block)
    size = file.tell()
    file.seek(0)
    headers = {
        # OSS compares what arrives with this, and refuses anything else.
        "content-md5": base64.b64encode(md5.digest()).decode(),
        "content-type": "application/octet-stream",
        "x-oss-content-sha256": "UNSIGNED-PAYLOAD",
        "x-oss-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "x-oss-security-token": credentials["SecurityToken"],
    }
    headers["authorization"] = authorization(
        "PUT", "/%s/%s" % (bucket, key), headers, region, credentials["AccessKeyId"], credentials["AccessKeySecret"]
    )
    headers["content-length"] = str(size)
    request("PUT", endpoint + "/" + urllib.parse.quote(key), headers, file, timeout=600)


def main(bucket, prefix, path, name):
    for attempt in (1, 2, 3):
        try:
            with open(path, "rb") as file:
                return put(bucket, prefix + name, file)
        except (OSError, ValueError, KeyError) as error:
            # An HTTP error is an OSError; its body says which part of a request OSS did not like.
            detail = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
            problem = "%s %s" % (error, " ".join(detail.split()))
            time.sleep(0 if attempt == 3 else attempt)
    sys.exit("consul-snapshot: no copy of %s in bucket %s: %s" % (name, bucket, problem))


if __name__ == "__main__":
    main(*sys.argv[1:])
