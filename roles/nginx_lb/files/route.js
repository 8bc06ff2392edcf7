// Sends a request to the location of the model that its body names. Managed by Ansible, role gpuhosts.vllm.nginx_lb.

// nginx.conf maps $model to the location, which is an error message where there is no such model.
function byModel(r) {
    r.variables.model = modelOf(r.requestText);
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

export default { byModel };
