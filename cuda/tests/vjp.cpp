// Every _vjp of include/splat against central differences in double precision, at random points and at special ones.
//
//   c++ -std=c++17 -O1 cuda/tests/vjp.cpp -o vjp && ./vjp
//
// A function is given as out = f(in); its vjp must equal J^T v for random cotangents v. Prints one line per function and
// exits with the number of functions that failed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "../include/splat/blend.h"
#include "../include/splat/field.h"
#include "../include/splat/projection.h"
#include "../include/splat/sh.h"
#include "../include/splat/ssim.h"

namespace {

using Vec = std::vector<double>;
std::mt19937_64 rng(7);

double uniform(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(rng); }
double normal() { return std::normal_distribution<double>()(rng); }

int failures = 0;

void check(const std::string& name, int trials, const std::function<Vec()>& point, const std::function<Vec(const Vec&)>& f,
           const std::function<Vec(const Vec&, const Vec&)>& vjp) {
    double worst = 0.0;
    for (int trial = 0; trial < trials; ++trial) {
        const Vec x = point();
        const Vec y = f(x);
        Vec v(y.size());
        for (double& e : v) e = normal();
        const Vec got = vjp(x, v);
        Vec want(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
            const double h = 1e-5 * std::max(1.0, std::fabs(x[i]));
            Vec hi = x, lo = x;
            hi[i] += h, lo[i] -= h;
            const Vec y_hi = f(hi), y_lo = f(lo);
            for (size_t j = 0; j < y.size(); ++j) want[i] += v[j] * (y_hi[j] - y_lo[j]) / (2 * h);
        }
        double difference = 0.0, scale = 1e-12;
        for (size_t i = 0; i < x.size(); ++i) {
            difference += (got[i] - want[i]) * (got[i] - want[i]);
            scale += want[i] * want[i];
        }
        worst = std::max(worst, std::sqrt(difference / scale));
    }
    const bool ok = worst < 1e-6;
    failures += !ok;
    std::printf("%-34s %4d points  worst relative error %.2e  %s\n", name.c_str(), trials, worst, ok ? "ok" : "FAILED");
}

Vec random_vec(size_t n, double scale = 1.0) {
    Vec v(n);
    for (double& e : v) e = scale * normal();
    return v;
}

splat::Camera<double> random_camera() {
    double quat[4] = {normal(), normal(), normal(), normal()}, R[9], viewmat[16] = {};
    splat::quat_to_rotmat(quat, R);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) viewmat[4 * i + j] = R[3 * i + j];
        viewmat[4 * i + 3] = normal();
    }
    viewmat[15] = 1.0;
    return splat::make_camera(viewmat, 90.0, 85.0, 47.0, 31.0, 96, 64);
}

// in = p [3], quat [4], log_scale [3], W [9]; out = mean2d [2], depth, cov [3], compensation.
Vec project_flat(const Vec& in, splat::Camera<double> cam, double eps2d) {
    std::copy(in.begin() + 10, in.begin() + 19, cam.W);
    splat::Projected<double> s;
    splat::project(&in[0], &in[3], &in[7], cam, eps2d, s);
    return {s.mean2d[0], s.mean2d[1], s.depth, s.cov[0], s.cov[1], s.cov[2], s.compensation};
}

Vec project_flat_vjp(const Vec& in, const Vec& v, splat::Camera<double> cam, double eps2d) {
    std::copy(in.begin() + 10, in.begin() + 19, cam.W);
    splat::ProjectionCotangents<double> c = {{v[0], v[1]}, v[2], {v[3], v[4], v[5]}, v[6]};
    Vec out(19, 0.0);
    splat::project_vjp(&in[0], &in[3], &in[7], cam, eps2d, c, &out[0], &out[3], &out[7], &out[10]);
    return out;
}

// wide: outside the clamp of the Jacobian; log_scale around the size of a few px.
Vec project_point(const splat::Camera<double>& cam, bool wide, double log_scale) {
    const double z = uniform(1.0, 6.0), side = wide ? (uniform(0, 1) < 0.5 ? -1.5 : 1.5) : uniform(-0.4, 0.4);
    Vec in = {side * z, uniform(-0.3, 0.3) * z, z, normal(), normal(), normal(), normal()};
    for (int i = 0; i < 3; ++i) in.push_back(log_scale + 0.7 * normal());
    in.insert(in.end(), cam.W, cam.W + 9);
    return in;
}

}  // namespace

int main() {
    check("quat_to_rotmat", 50, [] { return random_vec(4); },
          [](const Vec& x) {
              Vec R(9);
              splat::quat_to_rotmat(&x[0], &R[0]);
              return R;
          },
          [](const Vec& x, const Vec& v) {
              Vec R(9), out(4);
              const double inverse = splat::quat_to_rotmat(&x[0], &R[0]);
              splat::quat_to_rotmat_vjp(&x[0], inverse, &v[0], &out[0]);
              return out;
          });
    for (int degree = 0; degree <= 3; ++degree)
        check("sh_basis, degree " + std::to_string(degree), 20, [] { return random_vec(3); },
              [=](const Vec& x) {
                  Vec basis(splat::sh_bases(degree));
                  double full[16];
                  splat::sh_basis(degree, &x[0], full);
                  std::copy(full, full + basis.size(), basis.begin());
                  return basis;
              },
              [=](const Vec& x, const Vec& v) {
                  Vec out(3, 0.0);
                  splat::sh_basis_vjp(degree, &x[0], &v[0], &out[0]);
                  return out;
              });
    for (int degree = 0; degree <= 3; ++degree) {
        const int n = 3 * splat::sh_bases(degree);
        // in = mean [3], center [3], sh0 [3], shN; the view direction is part of the chain.
        check("sh_color, degree " + std::to_string(degree), 20,
              [=] {
                  Vec x = random_vec(6 + n, 0.4);
                  for (int c = 0; c < 3; ++c) x[6 + c] = c == 2 ? -9.0 : 0.5;  // the third channel is clamped to 0
                  return x;
              },
              [=](const Vec& x) {
                  double dir[3];
                  Vec color(3);
                  splat::view_direction(&x[0], &x[3], dir);
                  splat::sh_color(degree, dir, &x[6], x.data() + 9, &color[0]);
                  return color;
              },
              [=](const Vec& x, const Vec& v) {
                  double dir[3], color[3], v_dir[3] = {}, v_offset[3];
                  const double inverse = splat::view_direction(&x[0], &x[3], dir);
                  splat::sh_color(degree, dir, &x[6], x.data() + 9, color);
                  Vec out(6 + n, 0.0);
                  splat::sh_color_vjp(degree, dir, x.data() + 9, color, &v[0], &out[6], out.data() + 9, v_dir);
                  splat::view_direction_vjp(dir, inverse, v_dir, v_offset);
                  for (int i = 0; i < 3; ++i) out[i] = v_offset[i], out[3 + i] = -v_offset[i];
                  return out;
              });
    }
    check("camera center", 20,
          [] {
              const splat::Camera<double> cam = random_camera();
              Vec x(cam.W, cam.W + 9);
              x.insert(x.end(), cam.t, cam.t + 3);
              return x;
          },
          [](const Vec& x) {
              Vec center(3, 0.0);
              for (int i = 0; i < 3; ++i)
                  for (int j = 0; j < 3; ++j) center[i] -= x[3 * j + i] * x[9 + j];
              return center;
          },
          [](const Vec& x, const Vec& v) {
              Vec out(12, 0.0);
              splat::camera_center_vjp(&x[0], &x[9], &v[0], &out[0], &out[9]);
              return out;
          });
    for (double eps2d : {0.3, 0.05})
        for (bool wide : {false, true}) {
            const splat::Camera<double> cam = random_camera();
            const std::string what = (wide ? "project, clamped, eps2d " : "project, eps2d ") + std::to_string(eps2d).substr(0, 4);
            check(what, 40, [=] { return project_point(cam, wide, -2.5); },
                  [=](const Vec& x) { return project_flat(x, cam, eps2d); },
                  [=](const Vec& x, const Vec& v) { return project_flat_vjp(x, v, cam, eps2d); });
        }
    {
        // So small that the compensation sits on its floor, where its gradient is 0.
        const splat::Camera<double> cam = random_camera();
        check("project, compensation at its floor", 20, [=] { return project_point(cam, false, -8.0); },
              [=](const Vec& x) { return project_flat(x, cam, 0.3); },
              [=](const Vec& x, const Vec& v) { return project_flat_vjp(x, v, cam, 0.3); });
    }
    // A ray with five samples; in = (density, length, value) x 5, out = sum of weights times values, and distortion.
    constexpr int kSamples = 5;
    const auto middle = [](int i) { return 0.3 + 0.25 * i + 0.02 * i * i; };
    const auto ray = [=](const Vec& x) {
        double optical = 0.0, value = 0.0, front = 0.0, front_middles = 0.0, distortion = 0.0, after;
        for (int i = 0; i < kSamples; ++i) {
            const double own = x[3 * i] * x[3 * i + 1], w = splat::ray_weight(optical, own, &after);
            value += w * x[3 * i + 2];
            distortion += splat::distortion_step(w, middle(i), 0.1 + 0.05 * i, front, front_middles);
            optical += own, front += w, front_middles += w * middle(i);
        }
        return Vec{value, distortion};
    };
    check("samples of a ray", 40,
          [] {
              Vec x;
              for (int i = 0; i < kSamples; ++i) {
                  x.push_back(uniform(0, 4)), x.push_back(uniform(0.05, 0.5)), x.push_back(normal());
              }
              return x;
          },
          ray,
          [=](const Vec& x, const Vec& v) {
              double w[kSamples], after[kSamples], optical = 0.0, all = 0.0, all_middles = 0.0;
              for (int i = 0; i < kSamples; ++i) {
                  const double own = x[3 * i] * x[3 * i + 1];
                  w[i] = splat::ray_weight(optical, own, &after[i]);
                  optical += own, all += w[i], all_middles += w[i] * middle(i);
              }
              Vec out(3 * kSamples);
              double behind = 0.0, behind_middles = 0.0, shaded = 0.0;
              for (int i = kSamples - 1; i >= 0; --i) {
                  const double wm = w[i] * middle(i);
                  const double v_weight = v[0] * x[3 * i + 2] +
                                          v[1] * splat::distortion_vjp(w[i], middle(i), 0.1 + 0.05 * i, all - behind - w[i],
                                                                       all_middles - behind_middles - wm, behind, behind_middles);
                  out[3 * i] = splat::density_vjp(x[3 * i + 1], v_weight, after[i], shaded);
                  out[3 * i + 1] = splat::density_vjp(x[3 * i], v_weight, after[i], shaded);  // they only meet as a product
                  out[3 * i + 2] = v[0] * w[i];
                  shaded += v_weight * w[i], behind += w[i], behind_middles += wm;
              }
              return out;
          });
    // Eight entries of one cube; in = their values at a fixed point, out = the interpolated value.
    const double inside[3] = {0.3, 0.8, 0.45};
    const splat::GridCell<double> cell({0, 1, 8, true}, inside);
    check("trilinear interpolation", 10, [] { return random_vec(8); },
          [=](const Vec& x) {
              double sum = 0.0;
              for (int c = 0; c < 8; ++c) sum += cell.weight(c) * x[cell.index(c)];
              return Vec{sum};
          },
          [=](const Vec&, const Vec& v) {
              Vec out(8);
              for (int c = 0; c < 8; ++c) out[cell.index(c)] += cell.weight(c) * v[0];
              return out;
          });
    check("relu", 20, [] { return random_vec(6); },
          [](const Vec& x) {
              Vec y(x);
              for (double& e : y) e = splat::relu(e);
              return y;
          },
          [](const Vec& x, const Vec& v) {
              Vec out(x.size());
              for (size_t i = 0; i < x.size(); ++i) out[i] = splat::relu_vjp(splat::relu(x[i]), v[i]);
              return out;
          });
    // Blending three Gaussians over one pixel; in = (mean2d [2], cov [3], opacity, value) x 3 and the background value.
    const auto blend = [](const Vec& x) {
        double T = 1.0, out = 0.0;
        for (int i = 0; i < 3; ++i) {
            const double* g = &x[7 * i];
            const double dx = 4.5 - g[0], dy = 3.5 - g[1];
            // As the engine has it, from the covariance (xx, xy, yy).
            const double k = -0.5 * splat::kLog2e, a = g[4] / (g[2] * g[4] - g[3] * g[3]);
            const double alpha = std::exp2(splat::log2_alpha(dx, dy, k * a, -g[3] / g[4], k / g[4], std::log2(g[5])));
            out += alpha * T * g[6];
            T *= 1.0 - alpha;
        }
        return Vec{out + T * x[21]};
    };
    check("blend_vjp, moments_to_screen", 40,
          [] {
              Vec x;
              for (int i = 0; i < 3; ++i) {
                  const Vec g = {4.5 + normal(), 3.5 + normal(), uniform(1.5, 4.0), uniform(-1.0, 1.0), uniform(1.5, 4.0),
                                 uniform(0.1, 0.9), normal()};
                  x.insert(x.end(), g.begin(), g.end());
              }
              x.push_back(normal());
              return x;
          },
          blend,
          [](const Vec& x, const Vec& v) {
              double alphas[3], T = 1.0;
              for (int i = 0; i < 3; ++i) {
                  const double *g = &x[7 * i], dx = 4.5 - g[0], dy = 3.5 - g[1];
                  const double det = g[2] * g[4] - g[3] * g[3];
                  alphas[i] = g[5] * std::exp(-0.5 * (g[4] * dx * dx - 2 * g[3] * dx * dy + g[2] * dy * dy) / det);
                  T *= 1.0 - alphas[i];
              }
              Vec out(22, 0.0);
              double behind = T * v[0] * x[21];
              out[21] = T * v[0];
              for (int i = 2; i >= 0; --i) {
                  const double *g = &x[7 * i], dx = 4.5 - g[0], dy = 3.5 - g[1];
                  const double inverse = 1.0 / (1.0 - alphas[i]);
                  T *= inverse;
                  const double v_blend = g[6] * v[0];
                  const double s = alphas[i] * splat::blend_vjp(T, v_blend, behind, inverse);
                  behind += alphas[i] * T * v_blend;
                  const double a = g[4] / (g[2] * g[4] - g[3] * g[3]), shear = -g[3] / g[4], u = dx + shear * dy;
                  const double moments[6] = {s, s * u, s * dy, s * u * u, s * u * dy, s * dy * dy};
                  splat::moments_to_screen(moments, a, shear, 1 / g[4], g[5], &out[7 * i], &out[7 * i + 2], &out[7 * i + 5]);
                  out[7 * i + 6] = alphas[i] * T * v[0];
              }
              return out;
          });
    // Only x is optimised, so the partial derivative w.r.t. mu_y does not exist: in = mu_x, m_squares, m_difference.
    for (int trial = 0; trial < 3; ++trial) {
        const double mu_y = uniform(0.1, 0.9), m_yy = mu_y * mu_y + uniform(0.01, 0.05);
        check("ssim_value, set " + std::to_string(trial), 20,
              [=] {
                  const double mu_x = uniform(0.1, 0.9);
                  const double mu_d = mu_x - mu_y;
                  return Vec{mu_x, mu_x * mu_x + m_yy + uniform(0.01, 0.05), mu_d * mu_d + uniform(0.0, 0.03)};
              },
              [=](const Vec& x) { return Vec{splat::ssim_value(x[0], mu_y, x[1], x[2])}; },
              [=](const Vec& x, const Vec& v) {
                  Vec out(3);
                  splat::ssim_value_vjp(x[0], mu_y, x[1], x[2], &out[0], &out[1], &out[2]);
                  for (double& e : out) e *= v[0];
                  return out;
              });
    }
    return failures;
}
