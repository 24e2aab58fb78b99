// The native engine through its C interface, on ordinary, boundary and hostile input.
//
//   engine LEVEL
//
// At this level (generic, avx2, avx512, neon) and with 1, 2, 3 and 7 threads it draws, differentiates and updates, and checks that
//   - the results are the same bits for any number of threads, for a fresh and for a used workspace, and whatever the
//     outputs held before (so every number of every output is written);
//   - nothing is written beside an output, and no input is written (under AddressSanitizer: nor read beside an input);
//   - images are finite where the inputs are, and gradients where the inputs are moderate;
//   - the fused Adam step gives the numbers of the separate calls;
//   - a Gaussian with a NaN in its geometry is as good as absent.
// Built with a sanitizer (make sanitize) it shows what the engine does to memory, threads and undefined behaviour.
// Exits with 1 where anything failed, and with 77 where the processor cannot run the level.
#include <thread>

#include "cases.h"

using namespace cases;

namespace {

void check_case(const Case& c, const Options& options, CpuEngine& used) {
    const std::string level = where;
    where += ", " + c.name;
    splat_cpu_set_threads(1);
    CpuEngine fresh;
    const Outcome first = run(c, options, fresh, 0xff);
    expect_finite(c, first);
    for (int threads : {1, 2, 3, 7}) {
        splat_cpu_set_threads(threads);
        run(c, options, used, 0x3c).expect_same(first, (std::to_string(threads) + " threads").c_str());
    }
    where = level;
}

// ---------------------------------------------------------------------------------------------- loss, Adam, exponential
void check_loss(splat_workspace* used) {
    const std::string level = where;
    const int sizes[][2] = {{1, 1}, {15, 15}, {16, 16}, {17, 17}, {31, 33}, {40, 1}, {1, 40}, {5, 4}, {200, 60}};
    for (const auto& size : sizes)
        for (int kind = 0; kind < 8; ++kind) {
            where = level + ", loss of " + std::to_string(size[0]) + "x" + std::to_string(size[1]) + " kind " +
                    std::to_string(kind);
            const size_t count = size_t(size[0]) * size_t(size[1]) * 3;
            Random random{uint64_t(kind)};
            Floats x = random.fill(count, 0, 1), y = random.fill(count, 0, 1);
            if (kind == 1) y = x;
            if (kind == 2) x.assign(count, 0), y.assign(count, 1);
            const float poison[] = {kNan, kInf, FLT_MAX, 1e-42f};
            if (kind >= 4) x[count / 2] = poison[kind - 4];
            Floats counted(count);  // whole pixels
            for (size_t i = 0; i < count; ++i) counted[i] = i / 3 % 5 != 2;
            if (kind == 3 && count > 6) x[6] = kNan;  // of a pixel that does not count
            const Guarded<float> a(x), b(y), counts(counted);
            Outcome first;
            for (int threads : {1, 2, 3, 7}) {
                splat_cpu_set_threads(threads);
                CpuEngine fresh;
                Outcome out;
                Guarded<float> v_x(count, threads == 1 ? 0xff : 0x3c);
                Guarded<double> loss(3, 0xff);
                const int code = splat_cpu_l1_ssim(threads == 1 ? fresh.handle : used, a.data(), b.data(),
                                                   kind == 3 ? counts.data() : nullptr, size[0], size[1], 0.2f, v_x.data(),
                                                   loss.data());
                expect(code == SPLAT_OK, "loss gave %d", code);
                if (kind < 4 || kind == 7)
                    expect(all_finite(v_x.data(), count) && loss[0] >= -1e-6 && loss[0] <= 1.5, "loss %g", loss[0]);
                if (kind == 3)
                    for (size_t i = 0; i < count; ++i) expect(counted[i] != 0 || v_x[i] == 0, "v_x[%zu] = %g", i, v_x[i]);
                if (kind == 1) expect(std::fabs(loss[0]) < 1e-6, "the loss of equal images is %g", loss[0]);
                out.take("v_x", v_x), out.take("loss", loss);
                if (threads == 1)
                    first = out;
                else
                    out.expect_same(first, (std::to_string(threads) + " threads").c_str());
            }
        }
    where = level;
}

void check_adam() {
    const std::string level = where;
    for (int64_t count : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 8191, 8192, 8193, 60001})
        for (float poison : {0.5f, kNan, kInf, 1e-42f, FLT_MAX}) {
            where = level + ", Adam of " + std::to_string(count) + " with " + std::to_string(poison);
            Outcome first;
            for (int threads : {1, 2, 3, 7}) {
                splat_cpu_set_threads(threads);
                Random random{3};
                const size_t n = size_t(count);
                Floats values = random.fill(n, -1, 1);
                if (count) values[n / 2] = poison;
                const Guarded<float> grad(values);
                Guarded<float> param(random.fill(n, -1, 1)), m(random.fill(n, -1, 1)), v(random.fill(n, 0, 1));
                expect(splat_cpu_adam(param.data(), grad.data(), m.data(), v.data(), count, 1e-3, 0.9, 0.999, 1e-15, 4) ==
                           SPLAT_OK,
                       "no step");
                for (size_t i = 0; i < n; ++i)
                    if (i != n / 2 || std::fabs(poison) < 1e10f)
                        if (!std::isfinite(param[i])) expect(false, "number %zu is not finite", i);
                Outcome out;
                out.take("param", param), out.take("exp_avg", m), out.take("exp_avg_sq", v);
                if (threads == 1)
                    first = out;
                else
                    out.expect_same(first, (std::to_string(threads) + " threads").c_str());
            }
        }
    where = level;
}

void check_exponential() {
    for (int64_t count : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100}) {
        Random random{1};
        Floats values = random.fill(size_t(count), -125, 125);
        for (size_t i = 0; i < values.size() && i < 10; ++i)
            if (count == 100) values[10 * i] = kHostile[i].second;
        const Guarded<float> x(values);
        Guarded<float> out(values.size(), 0xff);
        splat_cpu_exp2(x.data(), out.data(), count);
        expect(out.intact(), "the exponential of %d numbers writes beyond them", int(count));
        for (size_t i = 0; i < values.size(); ++i)
            if (std::fabs(values[i]) <= 125)
                expect(std::fabs(double(out[i]) / std::exp2(double(values[i])) - 1) < 3e-7, "2^%g is %g", values[i], out[i]);
    }
}

// ---------------------------------------------------------------------------------------------------------- wrong calls
void check_refusals() {
    where = "wrong arguments";
    CpuEngine ws;
    Case c = ordinary("", 20, 3, 20, 20, 1);
    Parameters p(c, 0, true);
    splat_gaussians g = p.gaussians(c);
    splat_view view = c.view;
    Guarded<float> rgb(1200, 0), alpha(400, 0), depth(400, 0), means2d(40, 0), depths(20, 0), radii(20, 0);
    Guarded<uint8_t> visible(20, 0);
    splat_image image = {rgb.data(), alpha.data(), nullptr};
    splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
    splat_frame_info info{};
    const splat_image_cotangents v_image = {rgb.data(), nullptr, nullptr};
    splat_gradients v{};
    v.means = p.grad[0]->data(), v.quats = p.grad[1]->data(), v.log_scales = p.grad[2]->data();
    v.logit_opacities = p.grad[3]->data(), v.sh0 = p.grad[4]->data(), v.shN = p.grad[5]->data();
    const auto refused = [&](const char* what, int code) {
        expect(code == SPLAT_BAD_ARGUMENT, "%s gave %d", what, code);
    };
    const auto draw = [&] { return splat_cpu_forward(ws.handle, &g, &view, &image, &aux, &info); };
    const auto differentiate = [&] { return splat_cpu_backward(ws.handle, &g, &view, &v_image, &v, nullptr); };
    const auto wrong = [&](const char* what, const std::function<void()>& change) {
        const splat_view view_before = view;
        const splat_gaussians g_before = g;
        change();
        refused(what, draw());
        view = view_before, g = g_before;
    };
    refused("a backward pass before any forward pass", differentiate());
    wrong("no width", [&] { view.width = 0; });
    wrong("a negative height", [&] { view.height = -1; });
    wrong("too wide an image", [&] { view.width = 65537; });
    wrong("a negative count", [&] { g.n = -1; });
    wrong("too high a count", [&] { g.n = int64_t(1) << 31; });
    wrong("SH degree 4", [&] { view.sh_degree = 4; });
    wrong("SH degree -1", [&] { view.sh_degree = -1; });
    wrong("SH degree 2 of 1", [&] { view.sh_degree = 2; });
    wrong("a focal length of NaN", [&] { view.fx = kNan; });
    wrong("a negative eps2d", [&] { view.eps2d = -0.3f; });
    wrong("an eps2d of NaN", [&] { view.eps2d = kNan; });
    wrong("a focal length of 0", [&] { view.fy = 0; });
    refused("no workspace", splat_cpu_forward(nullptr, &g, &view, &image, &aux, &info));
    refused("no Gaussians", splat_cpu_forward(ws.handle, nullptr, &view, &image, &aux, &info));
    refused("no view", splat_cpu_forward(ws.handle, &g, nullptr, &image, &aux, &info));
    refused("no image", splat_cpu_forward(ws.handle, &g, &view, nullptr, &aux, &info));
    refused("no aux", splat_cpu_forward(ws.handle, &g, &view, &image, nullptr, &info));
    expect(draw() == SPLAT_OK && differentiate() == SPLAT_OK, "the right call is refused");
    g.n = 19;
    refused("a backward pass of other Gaussians", differentiate());
    g.n = 20, view.width = 19;
    refused("a backward pass of another view", differentiate());
    view.width = 20;
    const splat_image_cotangents with_depth = {rgb.data(), nullptr, depth.data()};
    refused("gradients of a depth that was not drawn", splat_cpu_backward(ws.handle, &g, &view, &with_depth, &v, nullptr));
    splat_adam adam = p.adam(false, false);
    adam.step = 0;
    refused("Adam step 0", splat_cpu_backward(ws.handle, &g, &view, &v_image, &v, &adam));
    adam.step = 1, adam.param[2] = adam.param[0];
    refused("Adam on other arrays", splat_cpu_backward(ws.handle, &g, &view, &v_image, &v, &adam));
    double loss[3];
    refused("a loss without images", splat_cpu_l1_ssim(ws.handle, nullptr, rgb.data(), nullptr, 20, 20, 0.2f, rgb.data(), loss));
    refused("a loss of no pixels", splat_cpu_l1_ssim(ws.handle, rgb.data(), rgb.data(), nullptr, 0, 20, 0.2f, rgb.data(), loss));
    refused("Adam of a negative count", splat_cpu_adam(nullptr, nullptr, nullptr, nullptr, -1, 1, 0.9, 0.999, 1e-8, 1));
    refused("Adam without arrays", splat_cpu_adam(nullptr, nullptr, nullptr, nullptr, 1, 1, 0.9, 0.999, 1e-8, 1));
    refused("an unknown level", splat_cpu_set_simd("sse9"));
    splat_cpu_workspace_destroy(nullptr);
}

// What stereo makes of photos that end where their memory ends, of ordinary and hostile maps between them.
struct StereoOutcome {
    Floats sweep, smooth, lowest, position, rival, planes, cost, costs, rate;
};

StereoOutcome run_stereo(const Guarded<uint16_t>& photo, const std::vector<Guarded<uint16_t>*>& others, int width, int height,
                         const std::vector<splat_stereo_view>& views, int radius, int stride, int threads, unsigned char fill) {
    splat_cpu_set_threads(threads);
    constexpr int kPlanes = 5;
    const splat_stereo_view reference = {photo.data(), width, height, 1, {}};
    const int count = int(views.size());
    const splat_stereo_settings dense = {radius, (count + 1) / 2, 1, 0, 1e-4f};
    const splat_stereo_settings sparse = {radius, (count + 1) / 2, stride, stride - 1 < width && stride - 1 < height ? stride - 1 : 0,
                                          1e-4f};
    const int gw = (width - sparse.first + stride - 1) / stride, gh = (height - sparse.first + stride - 1) / stride;
    const size_t pixels = size_t(width) * size_t(height), grid = size_t(gw) * size_t(gh);
    const Guarded<float> depths(Floats{0.0f, 0.2f, 0.5f, 1.0f, 3.0f});
    Guarded<float> sweep(pixels * kPlanes, fill), smooth(pixels * kPlanes, fill), lowest(pixels, fill), position(pixels, fill), rival(pixels, fill);
    expect(splat_cpu_stereo_sweep(&reference, views.data(), count, &dense, depths.data(), kPlanes, sweep.data()) == SPLAT_OK,
           "sweep was refused");
    Floats ramp(pixels);
    for (size_t i = 0; i < pixels; ++i) ramp[i] = float(i % 7) / 7;
    const Guarded<float> guide(ramp);
    expect(splat_cpu_stereo_semiglobal(sweep.data(), height, kPlanes, width, guide.data(), 0.1f, 1.0f, 0.1f, smooth.data()) == SPLAT_OK,
           "semi-global matching was refused");
    expect(splat_cpu_stereo_minima(sweep.data(), height, kPlanes, width, lowest.data(), position.data(), rival.data()) == SPLAT_OK,
           "minima were refused");
    Floats start(3 * grid, 0.0f);
    std::fill_n(start.begin(), grid, 0.5f);
    Guarded<float> planes(start), cost(grid, fill), costs(3 * size_t(count) * grid, fill), rate(grid, fill);
    const splat_stereo_search search = {0.01f, 3.0f, 0.2f, 8, 1};
    const float steps[2] = {1.0f, 0.5f};
    expect(splat_cpu_stereo_search(&reference, views.data(), count, &sparse, &search, steps, 2, planes.data(), cost.data()) == SPLAT_OK,
           "search was refused");
    expect(splat_cpu_stereo_costs(&reference, views.data(), count, &sparse, planes.data(), 0.5f, costs.data(), rate.data()) == SPLAT_OK,
           "costs were refused");
    const Guarded<float>* outputs[] = {&sweep, &smooth, &lowest, &position, &rival, &planes, &cost, &costs, &rate};
    for (const Guarded<float>* output : outputs) expect(output->intact(), "stereo wrote beside an output");
    for (const Guarded<float>* output : {&sweep, &lowest, &rival, &cost, &costs})
        for (size_t i = 0; i < output->size(); ++i)
            expect(output->data()[i] >= 0 && output->data()[i] <= 1, "a cost of %g", double(output->data()[i]));
    for (size_t i = 0; i < smooth.size(); ++i)
        expect(smooth.data()[i] >= 0 && smooth.data()[i] <= 2, "a cost of %g along paths", double(smooth.data()[i]));
    expect(photo.intact(), "stereo wrote into the reference");
    for (const Guarded<uint16_t>* other : others) expect(other->intact(), "stereo wrote into a neighbour");
    const auto copy = [](const Guarded<float>& values) { return Floats(values.data(), values.data() + values.size()); };
    return {copy(sweep), copy(smooth), copy(lowest), copy(position), copy(rival), copy(planes), copy(cost), copy(costs), copy(rate)};
}

void check_stereo() {
    const std::string before = where;
    Random random{77};
    const int sizes[][2] = {{2, 2}, {3, 17}, {33, 5}, {40, 31}, {16, 16}, {65, 2}};
    const float kMaps[][12] = {
        {1, 0, 0, 6, 0, 1, 0, 1, 0, 0, 1, 0},
        {0.98f, 0.03f, 1, -5, -0.02f, 1.01f, 0, 3, 1e-4f, 0, 1, 0.2f},
        {-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0},
        {kNan, 0, 0, 0, 0, kNan, 0, 0, 0, 0, kNan, 0},
        {kInf, 0, 0, 0, 0, kInf, 0, 0, 0, 0, 1, 0},
        {3e38f, 0, 0, 0, 0, 3e38f, 0, 0, 0, 0, 1e-30f, 3e38f},
        {1, 0, 0, 1e9f, 0, 1, 0, -1e9f, 0, 0, 1, -0.4f},
    };
    int index = 0;
    for (const auto& size : sizes) {
        const int width = size[0], height = size[1], radius = 1 + index % 4, stride = 1 + index % 3;
        where = before + ", stereo " + std::to_string(width) + "x" + std::to_string(height);
        const auto make = [&](int w, int h) {
            auto photo = std::make_unique<Guarded<uint16_t>>(size_t(w) * size_t(h), 0);
            for (size_t i = 0; i < photo->size(); ++i) photo->data()[i] = random.uniform(0, 1) < 0.02f ? 0 : uint16_t(random.next() | 1);
            return photo;
        };
        const auto photo = make(width, height);
        std::vector<std::unique_ptr<Guarded<uint16_t>>> others;
        std::vector<Guarded<uint16_t>*> pointers;
        std::vector<splat_stereo_view> views;
        for (const auto& map : kMaps) {
            const int w = 2 + int(random.next() % 50), h = 2 + int(random.next() % 50);
            others.push_back(make(w, h));
            pointers.push_back(others.back().get());
            splat_stereo_view view = {others.back()->data(), w, h, int(views.size()) % 2 == 0, {}};
            std::memcpy(view.from_reference, map, sizeof(map));
            views.push_back(view);
        }
        const StereoOutcome want = run_stereo(*photo, pointers, width, height, views, radius, stride, 1, 0x00);
        for (int threads : {2, 3, 7}) {
            const StereoOutcome got = run_stereo(*photo, pointers, width, height, views, radius, stride, threads, 0xff);
            const Floats StereoOutcome::*members[] = {&StereoOutcome::sweep,  &StereoOutcome::smooth, &StereoOutcome::lowest, &StereoOutcome::position,
                                                      &StereoOutcome::rival,  &StereoOutcome::planes, &StereoOutcome::cost,
                                                      &StereoOutcome::costs,  &StereoOutcome::rate};
            for (size_t m = 0; m < 9; ++m)
                expect(same_bits((want.*members[m]).data(), (got.*members[m]).data(), (want.*members[m]).size()),
                       "output %zu differs with %d threads", m, threads);
        }
        ++index;
    }
    where = before;
}

struct FieldCase {
    int64_t n;
    int inputs, width, hidden, outputs, degree;
    bool optional;  // with what may be absent
};

// The radiance field on points and rays that end where their memory ends, moderate and hostile.
std::vector<Floats> run_field(const FieldCase& c, bool hostile, int threads, unsigned char fill) {
    splat_cpu_set_threads(threads);
    const int64_t n = c.n;
    Random random{uint64_t(n) + 5};
    const splat_grid grid = {4, {1, 5, 9, 70}, {8, 216, 256, 64}};
    const size_t rows = 8 + 216 + 256 + 64, count = size_t(n);
    const splat_mlp mlp = {c.inputs, c.width, c.hidden, c.outputs};
    const size_t in = size_t(c.inputs), width = size_t(c.width), wide = size_t(c.outputs), bases = size_t((c.degree + 1) * (c.degree + 1));
    const size_t size = (in + 1) * width + size_t(c.hidden - 1) * (width + 1) * width + (width + 1) * wide;
    const float kHostile[] = {kNan, kInf, -kInf, FLT_MAX, -FLT_MAX, 1e-40f, -0.0f};
    const auto fill_in = [&](size_t floats, float lo, float hi) {
        Floats values = random.fill(floats, lo, hi);
        for (size_t i = 0; hostile && i < floats; i += 3) values[i] = kHostile[random.next() % 7];
        return values;
    };
    const Guarded<float> table(random.fill(2 * rows, -1, 1)), weights(random.fill(size, -0.5f, 0.5f));
    const Guarded<float> points(fill_in(3 * count, -0.1f, 1.1f)), v(fill_in(8 * count, -1, 1));
    const Guarded<float> x(fill_in(in * count, -1, 1)), v_out(fill_in(wide * count, -1, 1));
    Guarded<float> encoded(8 * count, fill), v_table(2 * rows, fill), out(wide * count, fill), v_x(c.optional ? in * count : 0, fill);
    Guarded<float> v_weights(size, fill);
    expect(splat_cpu_grid(&grid, table.data(), points.data(), n, encoded.data()) == SPLAT_OK, "the grid was refused");
    expect(all_finite(encoded.data(), encoded.size()), "a finite table gave features that are not finite");
    expect(splat_cpu_grid_vjp(&grid, points.data(), v.data(), n, v_table.data()) == SPLAT_OK, "the grid's gradient was refused");
    expect(splat_cpu_mlp(&mlp, weights.data(), x.data(), n, out.data()) == SPLAT_OK, "the MLP was refused");
    expect(splat_cpu_mlp_vjp(&mlp, weights.data(), x.data(), v_out.data(), n, c.optional ? v_x.data() : nullptr, v_weights.data()) ==
               SPLAT_OK,
           "the MLP's gradient was refused");
    std::vector<int64_t> starts = {0, 0};
    while (starts.back() < n) starts.push_back(std::min(n, starts.back() + int64_t(random.next() % 40)));
    const size_t rays = starts.size() - 1;
    const Guarded<int64_t> first(starts);
    const Guarded<float> density(fill_in(count, 0, 9)), length(fill_in(count, 0.01f, 0.2f)), distance(fill_in(count, 0, 5));
    const Guarded<float> rgb(fill_in(3 * count, 0, 1)), v_sum(fill_in(3 * rays, -1, 1));
    const splat_rays samples = {int64_t(rays), n, first.data(), density.data(), length.data(), distance.data(), rgb.data(),
                                distance.data(), length.data()};
    Guarded<float> share(count, fill), sum(3 * rays, fill), opacity(rays, fill), depth(rays, fill), distortion(rays, fill);
    const splat_ray_sums sums = {share.data(), sum.data(), opacity.data(), depth.data(), distortion.data()};
    expect(splat_cpu_rays(&samples, &sums) == SPLAT_OK, "rays were refused");
    Guarded<float> v_density(count, fill), v_rgb(3 * count, fill), basis(bases * count, fill);
    splat_ray_cotangents cotangents = {v_sum.data(), nullptr, nullptr, nullptr};
    if (c.optional) cotangents = {v_sum.data(), v_sum.data(), v_sum.data() + rays, v_sum.data() + 2 * rays};
    expect(splat_cpu_rays_vjp(&samples, &cotangents, v_density.data(), v_rgb.data()) == SPLAT_OK, "the gradient of rays was refused");
    expect(splat_cpu_sh_basis(c.degree, points.data(), n, basis.data()) == SPLAT_OK, "spherical harmonics were refused");
    // A box or a ball; rays from the points, along whatever lies in v.
    const splat_space space = {int32_t(n % 2), {-0.2f, 0.1f, 0.0f}, {1.0f, 1.0f, 1.0f}};
    const splat_sampling sampling = {5, 1 + int32_t(n % 70), 3, 0.1f, 0.05f};
    Guarded<float> unit(3 * count, fill), known(random.fill(125, 0, 9)), spaces(3 * count, fill), places(3 * count, fill);
    Guarded<float> middles(3 * count, fill), extents(3 * count, fill), sampled(9 * count, fill);
    const Guarded<float> shifts(random.fill(2 * count, 0, 0.99f));
    const splat_ray_samples sampled_rays = {spaces.data(), places.data(), middles.data(), extents.data(), sampled.data()};
    expect(splat_cpu_space_unit(&space, points.data(), n, unit.data()) == SPLAT_OK, "points in the unit cube were refused");
    expect(splat_cpu_occupancy_put(&space, 5, points.data(), density.data(), n, 0.5f, known.data()) == SPLAT_OK,
           "remembering densities was refused");
    expect(splat_cpu_ray_samples(&space, &sampling, known.data(), points.data(), v.data(), n, shifts.data(), &sampled_rays) == SPLAT_OK,
           "samples along rays were refused");
    expect(shifts.intact(), "the samples wrote beside the shifts");
    for (const Guarded<float>* input : {&table, &weights, &points, &v, &x, &v_out, &density, &length, &distance, &rgb, &v_sum})
        expect(input->intact(), "the field wrote beside an input");
    std::vector<Floats> found;
    for (const Guarded<float>* output : {&encoded, &v_table, &out, &v_x, &v_weights, &share, &sum, &opacity, &depth, &distortion,
                                         &v_density, &v_rgb, &basis, &unit, &known, &spaces, &places, &middles, &extents,
                                         &sampled}) {
        expect(output->intact(), "the field wrote beside output %zu", found.size());
        expect(hostile || all_finite(output->data(), output->size()), "output %zu of the field is not finite", found.size());
        found.emplace_back(output->data(), output->data() + output->size());
    }
    return found;
}

void check_field() {
    const std::string before = where;
    // Around every vector and block, and enough of each for every loop to have work for seven threads.
    const FieldCase kCases[] = {
        {0, 8, 33, 2, 4, 3, true},    {1, 1, 1, 1, 1, 0, false},     {15, 64, 64, 2, 64, 1, true}, {16, 16, 32, 1, 16, 2, true},
        {17, 8, 33, 2, 4, 3, false},  {63, 31, 17, 1, 3, 3, true},   {64, 8, 33, 2, 4, 3, true},   {65, 8, 64, 2, 1, 3, true},
        {300, 8, 33, 2, 4, 3, true},  {9000, 8, 16, 1, 4, 2, true},
    };
    for (const FieldCase& c : kCases)
        for (const bool hostile : {false, true}) {
            where = before + ", field of " + std::to_string(c.n) + (hostile ? " hostile samples" : " samples");
            const std::vector<Floats> want = run_field(c, hostile, 1, 0x00);
            for (int threads : {2, 3, 7}) {
                const std::vector<Floats> got = run_field(c, hostile, threads, 0xff);
                for (size_t m = 0; m < want.size(); ++m)
                    expect(same_bits(want[m].data(), got[m].data(), want[m].size()), "output %zu differs with %d threads", m, threads);
            }
        }
    where = before;
}

void check_field_refusals() {
    const auto refused = [](const char* what, int code) { expect(code == SPLAT_BAD_ARGUMENT, "%s gave %d", what, code); };
    Guarded<float> floats(4096, 0);
    float* f = floats.data();
    const splat_grid right = {2, {1, 70}, {8, 64}};
    const auto grid = [&](const char* what, const std::function<void(splat_grid&)>& change) {
        splat_grid wrong = right;
        change(wrong);
        refused(what, splat_cpu_grid(&wrong, f, f, 1, f + 100));
        refused(what, splat_cpu_grid_vjp(&wrong, f, f + 100, 1, f + 200));
    };
    grid("no level", [](splat_grid& g) { g.levels = 0; });
    grid("17 levels", [](splat_grid& g) { g.levels = 17; });
    grid("a level without cells", [](splat_grid& g) { g.cells[1] = 0; });
    grid("65536 cells", [](splat_grid& g) { g.cells[1] = 65536; });
    grid("a level without entries", [](splat_grid& g) { g.rows[0] = 0; });
    grid("hashes into 63 entries", [](splat_grid& g) { g.rows[1] = 63; });
    grid("entries beyond 2^31", [](splat_grid& g) { g.levels = 3, g.cells[2] = 65535, g.rows[0] = g.rows[1] = g.rows[2] = 1 << 30; });
    refused("no grid", splat_cpu_grid(nullptr, f, f, 1, f + 100));
    refused("no table", splat_cpu_grid(&right, nullptr, f, 1, f + 100));
    refused("a negative number of points", splat_cpu_grid(&right, f, f, -1, f + 100));
    refused("no gradient of features", splat_cpu_grid_vjp(&right, f, nullptr, 1, f + 200));
    refused("no gradient of the table", splat_cpu_grid_vjp(&right, f, f, 0, nullptr));
    const splat_mlp small = {2, 3, 1, 2};
    const auto mlp = [&](const char* what, const std::function<void(splat_mlp&)>& change) {
        splat_mlp wrong = small;
        change(wrong);
        refused(what, splat_cpu_mlp(&wrong, f, f, 1, f + 100));
        refused(what, splat_cpu_mlp_vjp(&wrong, f, f, f, 1, nullptr, f + 200));
    };
    mlp("no inputs", [](splat_mlp& m) { m.inputs = 0; });
    mlp("65 inputs", [](splat_mlp& m) { m.inputs = 65; });
    mlp("65 wide", [](splat_mlp& m) { m.width = 65; });
    mlp("no hidden layer", [](splat_mlp& m) { m.hidden = 0; });
    mlp("3 hidden layers", [](splat_mlp& m) { m.hidden = 3; });
    mlp("65 outputs", [](splat_mlp& m) { m.outputs = 65; });
    refused("no MLP", splat_cpu_mlp(nullptr, f, f, 1, f + 100));
    refused("no weights", splat_cpu_mlp(&small, nullptr, f, 1, f + 100));
    refused("no inputs of an MLP", splat_cpu_mlp(&small, f, nullptr, 1, f + 100));
    refused("no gradient of weights", splat_cpu_mlp_vjp(&small, f, f, f, 1, f + 100, nullptr));
    const splat_ray_sums sums = {f, f, f, f, f};
    const splat_ray_cotangents v = {f, nullptr, nullptr, nullptr};
    const auto rays = [&](const char* what, const std::vector<int64_t>& starts, int64_t samples, const float* density) {
        const Guarded<int64_t> first(starts);
        const splat_rays wrong = {int64_t(starts.size()) - 1, samples, first.data(), density, f, f, f, f, f};
        refused(what, splat_cpu_rays(&wrong, &sums));
        refused(what, splat_cpu_rays_vjp(&wrong, &v, f, f));
    };
    rays("rays that begin behind the first sample", {1, 3}, 3, f);
    rays("rays that end before the last sample", {0, 2}, 3, f);
    rays("rays that end behind the last sample", {0, 4}, 3, f);
    rays("rays that run backwards", {0, 3, 2, 3}, 3, f);
    rays("a negative number of rays", {}, 0, f);
    rays("no density", {0, 3}, 3, nullptr);
    refused("no rays", splat_cpu_rays(nullptr, &sums));
    refused("SH degree 4", splat_cpu_sh_basis(4, f, 1, f + 100));
    refused("SH degree -1", splat_cpu_sh_basis(-1, f, 1, f + 100));
    refused("no directions", splat_cpu_sh_basis(0, nullptr, 1, f + 100));
    expect(floats.intact() && std::all_of(f, f + 4096, [](float value) { return value == 0; }), "a refused call wrote");
}

// Two callers at once, each with a workspace of its own.
void check_callers() {
    where += ", two callers at once";
    const Options options = {true, true, true, true};
    const Case cases[2] = {ordinary("", 900, 15, 60, 50, 4), ordinary("", 700, 3, 33, 70, 5)};
    splat_cpu_set_threads(2);
    Outcome alone[2], together[2];
    for (int i = 0; i < 2; ++i) {
        CpuEngine ws;
        alone[i] = run(cases[i], options, ws, 1);
    }
    // `checks` and `where` are not shared: what the threads find is looked at when they have ended.
    const auto draw = [&](int i, Floats* rgb) {
        CpuEngine ws;
        const Case& c = cases[i];
        const splat_gaussians g = {c.n, c.k, c.field[0].data(), c.field[1].data(), c.field[2].data(), c.field[3].data(),
                                   c.field[4].data(), c.field[5].data()};
        Floats alpha(c.pixels()), depth(c.pixels()), means2d(size_t(2 * c.n)), depths(size_t(c.n)), radii(size_t(c.n));
        std::vector<uint8_t> visible(size_t(c.n));
        for (int repeat = 0; repeat < 5; ++repeat) {
            rgb->assign(3 * c.pixels(), -1);
            splat_image image = {rgb->data(), alpha.data(), depth.data()};
            splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
            splat_cpu_forward(ws.handle, &g, &c.view, &image, &aux, nullptr);
        }
    };
    Floats rgb[2];
    std::thread other(draw, 0, &rgb[0]);
    draw(1, &rgb[1]);
    other.join();
    for (int i = 0; i < 2; ++i) {
        size_t count;
        const float* want = alone[i].floats("rgb", &count);
        expect(count == rgb[i].size() && same_bits(want, rgb[i].data(), count), "caller %d got another image", i);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s LEVEL\n", argv[0]);
        return 2;
    }
    const char* level = argv[1];
    if (splat_cpu_set_simd(level) != SPLAT_OK) {
        std::printf("%s: this processor cannot run %s\n", splat_cpu_version(), level);
        return 77;
    }
    check_refusals();
    check_field_refusals();
    where = level;
    const std::vector<Case> cases = make_cases();
    CpuEngine used;
    int index = 0;
    for (const Case& c : cases) {
        const Options options = {!c.moderate || index % 2, index % 4 < 2, index % 3 != 0, index % 5 != 0};
        check_case(c, options, used);
        ++index;
    }
    check_isolation(used);
    check_loss(used.handle);
    check_adam();
    check_exponential();
    check_stereo();
    check_field();
    check_callers();
    std::printf("%s: %s: %zu cases, %ld checks: %s\n", splat_cpu_version(), level, cases.size(), checks,
                failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
