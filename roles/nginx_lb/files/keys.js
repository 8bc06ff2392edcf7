// Tells keys apart without knowing them. Managed by Ansible, role gpuhosts.vllm.nginx_lb.
import crypto from 'crypto';

// SHA-256 of the key that a request brings, as OpenAI's clients send it or as Anthropic's do; nothing without one.
function digest(r) {
    const bearer = /^Bearer +([^ ]+) *$/i.exec(r.headersIn['Authorization'] || '');
    const key = bearer ? bearer[1] : r.headersIn['X-Api-Key'];
    return key ? crypto.createHash('sha256').update(key).digest('hex') : '';
}

export default { digest };
