// Sends a request to the location of the model that its body names. Managed by Ansible, role gpuhosts.vllm.nginx_lb.

// nginx.conf maps $model to the location, which is an error message where there is no such model.
function byModel(r) {
    const form = (r.headersIn['Content-Type'] || '').startsWith('multipart/form-data');
    r.variables.model = form ? ofForm(r.requestBuffer) : modelOf(r.requestText);
    r.internalRedirect(r.variables.model_location);
}

function modelOf(body) {
    try {
        const model = JSON.parse(body).model;
        return typeof model === "string" ? model : "";
    } catch (e) {
        return "";
    }
}

// A recording is sent as a form (RFC 7578), most of which is no text.
function ofForm(body) {
    const field = 'name="model"';
    const place = body ? body.indexOf(field) : -1;
    if (place < 0) {
        return "";
    }
    const text = body.slice(place + field.length, place + field.length + 512).toString();
    const value = /^[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n--/.exec(text);
    return value ? value[1] : "";
}

export default { byModel };
