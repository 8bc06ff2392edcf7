#!/bin/sh
# Managed by Ansible, role gpuhosts.vllm.nginx_lb: certbot calls this with the directory of a new certificate in RENEWED_LINEAGE.
set -eu

put() { # MODE FROM TO: in one rename
    install -m "$1" "$RENEWED_LINEAGE/$2" "/etc/nginx/tls/.$3.new"
    mv "/etc/nginx/tls/.$3.new" "/etc/nginx/tls/$3"
}

put 0600 privkey.pem key.pem
put 0644 fullchain.pem certificate.pem
systemctl reload nginx.service # cuts no stream
